from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.time_guard import TimeGuard, Verdict

LATENESS, MAX_JUMP = 10, 25


def decide_all(times: list[int], guard: TimeGuard) -> tuple[list[Verdict], TimeGuard]:
    verdicts = []
    for time in times:
        verdict, guard = guard.decide(time, lateness=LATENESS, max_jump=MAX_JUMP)
        verdicts.append(verdict)
    return verdicts, guard


@given(times=st.lists(st.integers(1, 200)), data=st.data())
def test_a_stored_guard_decides_the_same_at_any_cut(times: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(times)))
    verdicts, guard = decide_all(times, TimeGuard())
    before, stored = decide_all(times[:cut], TimeGuard())
    after, again = decide_all(times[cut:], TimeGuard.decode(stored.encode()))
    assert before + after == verdicts
    assert again == guard


@given(times=st.lists(st.integers(1, 200)))
def test_what_is_accepted_stays_within_the_lateness(times: list[int]) -> None:
    verdicts, _ = decide_all(times, TimeGuard())
    highest = 0
    for time, verdict in zip(times, verdicts, strict=True):
        if verdict == "accept":
            assert time >= highest - LATENESS
            highest = max(highest, time)
        elif verdict == "future":
            assert time > highest + MAX_JUMP
        else:
            assert time < highest - LATENESS


@pytest.mark.parametrize(
    ("times", "verdicts"),
    [
        ([100], ["accept"]),
        ([100, 125, 126], ["accept", "accept", "accept"]),
        ([100, 90, 89], ["accept", "accept", "too_late"]),
        # One event far ahead, and time goes on as before.
        ([100, 900, 101, 102], ["accept", "future", "accept", "accept"]),
        # The next one is as far ahead: the leap was real.
        ([100, 900, 901, 100], ["accept", "future", "accept", "too_late"]),
        ([100, 900, 880], ["accept", "future", "accept"]),
        # The next one is far from both.
        ([100, 900, 500, 501], ["accept", "future", "future", "accept"]),
        # What comes too late between them breaks the confirmation.
        ([100, 900, 1, 901, 902], ["accept", "future", "too_late", "future", "accept"]),
        ([100, 900, 101, 901], ["accept", "future", "accept", "future"]),
    ],
)
def test_leaps_and_late_events(times: list[int], verdicts: list[Verdict]) -> None:
    assert decide_all(times, TimeGuard())[0] == verdicts


def test_a_fresh_guard_is_the_empty_text() -> None:
    assert TimeGuard.decode("") == TimeGuard()


@pytest.mark.parametrize("text", ["x", "1", "1:2:3", "a:b"])
def test_what_is_no_guard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unpack|invalid literal"):
        TimeGuard.decode(text)
