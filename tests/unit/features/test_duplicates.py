from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.duplicates import find_duplicates
from headrace.pipeline.events import hash_ids
from headrace.pipeline.state import compile_plan
from headrace.pipeline.stored_logs import EntityLogs
from headrace.platform.pipelines import load_pipeline

entity = compile_plan(load_pipeline("pipelines/fraud.py")).entities[0]
Held = st.lists(st.lists(st.integers(0, 8), max_size=6, unique=True), min_size=1, max_size=4)


def log(numbers: list[int], *, header: bool) -> bytes:
    records = np.zeros(len(numbers), entity.event_record)
    records["id"] = hash_ids([f"e{number}" for number in numbers])
    return (entity.header(entity.event_record, 3) if header else b"") + records.tobytes()


@given(held=Held, headers=st.booleans(), data=st.data())
def test_each_id_counts_once_for_each_key(held: list[list[int]], headers: bool, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.tuples(st.integers(0, len(held) - 1), st.integers(0, 8), st.booleans()), max_size=12))
    slots = np.array([slot for slot, _, _ in rows], np.int64)
    candidates = np.array([candidate for _, _, candidate in rows], np.bool_)
    logs = EntityLogs(entity, [f"c{i}" for i in range(len(held))], slots, [log(h, header=headers) for h in held], [])
    found = find_duplicates(logs, hash_ids([f"e{number}" for _, number, _ in rows]), candidates)
    seen = [set(numbers) for numbers in held]
    expected = []
    for slot, number, candidate in rows:
        expected.append(candidate and number in seen[slot])
        if candidate:
            seen[slot].add(number)
    assert found.tolist() == expected
