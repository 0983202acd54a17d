from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.accepted_events import AcceptedEvent, AcceptedEvents, GuardsInOrder
from headrace.features.decoding import time_bounds
from headrace.features.time_guard import TimeGuard
from headrace.pipeline import DAY, HOUR
from headrace.platform.event_codec import CheckedEvent
from headrace.platform.pipelines import load_pipeline

pipeline = load_pipeline("pipelines/fraud.py")
START = 1_600_000_000_000_000


@given(steps=st.lists(st.integers(-HOUR, DAY // 2), min_size=1, max_size=20), data=st.data())
def test_the_guard_after_a_row_is_what_deciding_one_by_one_gives(steps: list[int], data: st.DataObject) -> None:
    times = START + np.cumsum(np.array(steps, np.int64))
    produced = np.arange(len(times), dtype=np.int64) + START
    before = guard = TimeGuard(START, 0, START)
    expected = []
    for time, at in zip(times.tolist(), produced.tolist(), strict=True):
        guard = guard.decide(time, at, time_bounds(pipeline))[1]
        expected.append(guard)
    plainly = before.accept_run(times, produced, time_bounds(pipeline))[0]
    guards = GuardsInOrder(before, times[:plainly], produced[:plainly], time_bounds(pipeline))
    rows = sorted(data.draw(st.sets(st.integers(0, max(plainly - 1, 0)), max_size=plainly)))
    assert [guards.after(row) for row in rows] == [expected[row] for row in rows]


def test_rows_and_parts_are_those_of_the_whole() -> None:
    rows = [
        AcceptedEvent(
            10 + i,
            i,
            None if i % 2 else b"k",
            CheckedEvent(f"e{i}", START + i, [f"c{i}", "t"], [float(i)], i == 3),
            TimeGuard(START + i),
            i == 4,
        )
        for i in range(6)
    ]
    events = AcceptedEvents.of(pipeline, rows)
    assert list(events) == rows
    assert list(events.part(2, 4)) == rows[2:4]
    assert list(events.part(4, 99)) == rows[4:]
