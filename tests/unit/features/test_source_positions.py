from __future__ import annotations

import re

import pytest

from headrace.features.errors import StateUnusableError
from headrace.features.event_merging import NOTHING_MERGED, PartitionProgress, decode_source
from headrace.features.source_positions import StartingPoint, starting_point
from headrace.features.time_guard import TimeGuard

FENCE_GUARD, COMMIT_GUARD = TimeGuard(500, 900), TimeGuard(300, 0)
STORED = PartitionProgress(0, 200).encode(FENCE_GUARD)


@pytest.mark.parametrize(
    ("fence", "commit", "log", "expected"),
    [
        # Nothing is known: from the first record there is.
        (None, None, (0, 0), StartingPoint(0, NOTHING_MERGED, 0, TimeGuard(), 0)),
        (None, None, (7, 90), StartingPoint(7, NOTHING_MERGED, 0, TimeGuard(), 0)),
        # Stopped in good order.
        (41, 42, (0, 42), StartingPoint(42, 41, 42, COMMIT_GUARD, 300)),
        (41, 42, (0, 90), StartingPoint(42, 41, 42, COMMIT_GUARD, 300)),
        # Killed after merging, before committing: 30 to 41 are evaluated and published again.
        (41, 30, (0, 90), StartingPoint(30, 41, 30, COMMIT_GUARD, 300)),
        # Killed before the first commit.
        (41, None, (0, 90), StartingPoint(0, 41, 0, TimeGuard(), 0)),
        # Redis lost its last writes: 42 to 59 are merged again, not published.
        (41, 60, (0, 90), StartingPoint(42, 41, 60, FENCE_GUARD, 300)),
        # Redis lost everything, and the topic still has all.
        (None, 60, (0, 90), StartingPoint(0, NOTHING_MERGED, 60, TimeGuard(), 300)),
        # All that is needed is just there.
        (41, 42, (42, 42), StartingPoint(42, 41, 42, COMMIT_GUARD, 300)),
    ],
)
def test_where_to_go_on(fence: int | None, commit: int | None, log: tuple[int, int], expected: StartingPoint) -> None:
    stored = "" if fence is None else STORED
    committed = None if commit is None else (commit, COMMIT_GUARD.encode())
    assert starting_point("fraud.events/0", fence, stored, committed, log) == expected


@pytest.mark.parametrize(
    ("fence", "commit", "log", "message"),
    [
        (90, 42, (0, 90), "fraud.events/0 ends at offset 90, but the state has merged up to 90 and 42 is committed"),
        (41, 91, (0, 90), "fraud.events/0 ends at offset 90, but the state has merged up to 41 and 91 is committed"),
        (41, 42, (0, 0), "fraud.events/0 ends at offset 0,"),
        (41, 42, (43, 90), "fraud.events/0 begins at offset 43, but offset 42 is needed: it was kept too short"),
        (41, 30, (31, 90), "fraud.events/0 begins at offset 31, but offset 30 is needed"),
        (None, 60, (1, 90), "fraud.events/0 begins at offset 1, but offset 0 is needed"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    fence: int | None, commit: int, log: tuple[int, int], message: str
) -> None:
    with pytest.raises(StateUnusableError, match=re.escape(message)) as raised:
        starting_point("fraud.events/0", fence, STORED, (commit, COMMIT_GUARD.encode()), log)
    assert str(raised.value).endswith(
        "`headrace features reset` clears the state, and the worker rebuilds it from what the topics hold"
    )


def test_what_is_stored_beside_a_fence() -> None:
    assert decode_source(STORED) == (FENCE_GUARD, 200)
    assert decode_source("") == (TimeGuard(), 0)
