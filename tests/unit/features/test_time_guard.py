from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.time_guard import LIVE_TOLERANCE, TimeBounds, TimeGuard, Verdict

BOUNDS = TimeBounds(lateness=10, retention=40, max_jump=25)
MERGED = {"accept", "late"}

Step = tuple[int, int]
"""Event time, and when its record was produced."""

# Production goes on in small steps, stands still, or is not known; event times leap about.
steps = st.lists(st.tuples(st.integers(1, 300), st.integers(-1, 40)), max_size=40)
ordered = st.lists(st.tuples(st.integers(-12, 27), st.integers(0, 3)), max_size=60)


def decide_all(steps: list[Step], guard: TimeGuard, bounds: TimeBounds = BOUNDS) -> tuple[list[Verdict], TimeGuard]:
    verdicts = []
    for time, produced in steps:
        verdict, guard = guard.decide(time, produced, bounds)
        verdicts.append(verdict)
    return verdicts, guard


def at_one_moment(*times: int) -> list[Step]:
    return [(time, 5) for time in times]


@given(steps=steps, data=st.data())
def test_a_stored_guard_decides_the_same_at_any_cut(steps: list[Step], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(steps)))
    verdicts, guard = decide_all(steps, TimeGuard())
    before, stored = decide_all(steps[:cut], TimeGuard())
    after, again = decide_all(steps[cut:], TimeGuard.decode(stored.encode()))
    assert before + after == verdicts
    assert again == guard


@given(steps=steps)
def test_what_is_merged_stays_within_the_retention_of_what_is_confirmed(steps: list[Step]) -> None:
    guard, confirmed = TimeGuard(), 0
    for time, produced in steps:
        highest = guard.highest
        verdict, guard = guard.decide(time, produced, BOUNDS)
        if verdict in MERGED:
            assert time >= confirmed - BOUNDS.retention
        if verdict == "accept":
            assert time >= confirmed - BOUNDS.lateness
        if verdict == "late":
            assert time < highest - BOUNDS.lateness
        # What has been confirmed never goes back: logs were trimmed by it.
        assert guard.confirmed >= confirmed
        confirmed = guard.confirmed


@given(before=steps, steps=st.one_of(steps, ordered), live=st.booleans())
def test_a_run_in_order_is_what_deciding_one_by_one_accepts(before: list[Step], steps: list[Step], live: bool) -> None:
    bounds = TimeBounds(10, 40, 25, live)
    _, guard = decide_all(before, TimeGuard(), bounds)
    start = guard.highest
    steps = [(max(start + time, 1), produced) for time, produced in steps]
    times, produced = (np.array([step[i] for step in steps], np.int64) for i in (0, 1))
    count, after = guard.accept_run(times, produced, bounds)
    verdicts, expected = decide_all(steps[:count], guard, bounds)
    assert set(verdicts) <= {"accept"}
    assert after == expected
    if count < len(steps) and guard.confirmed:
        # It ends only where something is to be said: refused or late, or accepted as a leap that is confirmed.
        verdict, _ = expected.decide(*steps[count], bounds)
        assert verdict != "accept" or steps[count][0] > expected.highest + bounds.max_jump


def test_a_run_in_order_is_taken_whole() -> None:
    times = np.arange(1000, 6000, 5, dtype=np.int64)
    count, after = TimeGuard(1000, 0, 1).accept_run(times, times // 10, BOUNDS)
    assert (count, after) == (1000, TimeGuard(5995, 0, 599))


def test_a_live_run_ends_at_what_lies_ahead_of_its_record() -> None:
    bounds = TimeBounds(10, 40, 2 * LIVE_TOLERANCE, live=True)
    times = np.array([100, 101, LIVE_TOLERANCE + 8, 102], np.int64)
    assert TimeGuard(100, 0, 1).accept_run(times, np.full(4, 7), bounds) == (2, TimeGuard(101, 0, 7))
    assert TimeGuard(100).decide(LIVE_TOLERANCE + 8, 7, bounds) == ("future", TimeGuard(100))
    assert TimeGuard(100).decide(LIVE_TOLERANCE + 7, 7, bounds)[0] == "accept"


@pytest.mark.parametrize(
    ("times", "verdicts"),
    [
        ([100], ["accept"]),
        ([100, 125, 126], ["accept", "accept", "accept"]),
        ([100, 101, 91, 90, 61, 60], ["accept", "accept", "accept", "late", "late", "too_late"]),
        # One event far ahead, and time goes on as before.
        ([100, 900, 101, 102], ["accept", "leap", "accept", "accept"]),
        # The next one is as far ahead: the leap was real.
        ([100, 900, 901, 100], ["accept", "leap", "accept", "too_late"]),
        ([100, 900, 880], ["accept", "leap", "accept"]),
        # The next one is far from both.
        ([100, 900, 500, 501], ["accept", "leap", "leap", "accept"]),
        # What comes too late between them breaks the confirmation.
        ([100, 101, 900, 1, 901, 902], ["accept", "accept", "leap", "too_late", "leap", "accept"]),
        ([100, 900, 101, 901], ["accept", "leap", "accept", "leap"]),
        # The first event was wrong, and far ahead: time goes on where the others are.
        ([9000, 100, 101, 60], ["accept", "accept", "accept", "too_late"]),
        ([9000, 100, 200, 201], ["accept", "accept", "leap", "accept"]),
        # The first two are both near nothing; the third says which was right.
        ([100, 20, 101, 102], ["accept", "accept", "accept", "accept"]),
        # The first event was wrong, and far behind.
        ([1, 100, 101, 102], ["accept", "leap", "accept", "accept"]),
    ],
)
def test_leaps_and_late_events(times: list[int], verdicts: list[Verdict]) -> None:
    assert decide_all(at_one_moment(*times), TimeGuard())[0] == verdicts


def test_a_pause_of_the_producer_is_no_leap() -> None:
    """Event time may go on by as much as passed between the records."""
    guard = TimeGuard(100, 0, 1000)
    assert guard.decide(626, 1500, BOUNDS)[0] == "leap"
    assert guard.decide(625, 1500, BOUNDS) == ("accept", TimeGuard(625, 0, 1500))
    # Late events meanwhile are no sign of how far time has come.
    _, guard = guard.decide(95, 1490, BOUNDS)
    assert guard.decide(625, 1500, BOUNDS)[0] == "accept"
    # Nothing is known without both timestamps.
    assert TimeGuard(100).decide(626, 1500, BOUNDS)[0] == "leap"
    assert TimeGuard(100, 0, 1000).decide(626, -1, BOUNDS)[0] == "leap"


def test_nothing_is_confirmed_by_a_first_event_alone() -> None:
    _, guard = TimeGuard().decide(9000, 5, BOUNDS)
    assert (guard.highest, guard.confirmed) == (9000, 0)
    _, guard = guard.decide(8995, 5, BOUNDS)
    assert guard.confirmed == 9000


def test_a_fresh_guard_is_the_empty_text() -> None:
    assert TimeGuard.decode("") == TimeGuard()


def test_a_guard_without_production_time_is_read() -> None:
    assert TimeGuard.decode("100:900") == TimeGuard(100, 900)


@pytest.mark.parametrize("text", ["x", "1", "1:2:3", "1:2:3:4:5", "a:b"])
def test_what_is_no_guard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unpack|invalid literal"):
        TimeGuard.decode(text)
