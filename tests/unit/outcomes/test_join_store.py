"""The store keeps whole batches, finds what is due, and begins anew where it cannot go on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.outcomes.answer_clock import AnswerClock
from headrace.outcomes.errors import StoreUnavailableError
from headrace.outcomes.event_state import (
    Answered,
    Closed,
    EventState,
    Shadow,
    UsedLabel,
    Waiting,
    decode,
    encode,
    stored_as,
)
from headrace.outcomes.join_store import open_store
from headrace.outcomes.progress import Positions, Progress

TIMES = st.integers(0, 2**62)
LABELS = st.builds(UsedLabel, st.floats(allow_nan=False), TIMES, TIMES)
SHADOWS = st.lists(st.builds(Shadow, st.text(max_size=20), st.floats(allow_nan=False)), max_size=3)
STATES = st.one_of(
    st.builds(Closed, TIMES),
    st.builds(Waiting, TIMES, st.lists(LABELS, max_size=3), SHADOWS),
    st.builds(Answered, TIMES, st.binary(max_size=50), TIMES, st.none() | LABELS, SHADOWS),
)
START = Progress(Positions(3, 4), AnswerClock(70, 0), 50)


@given(state=STATES)
def test_states_are_stored_exactly(state: EventState) -> None:
    assert decode(encode(state)) == state


@pytest.mark.parametrize("stored", [b"", b"x", b"A", b"W\x00", b"C123"])
def test_damaged_states_are_refused(stored: bytes) -> None:
    with pytest.raises(ValueError, match="stored state"):
        decode(stored)


def test_progress_is_stored_and_committed_exactly() -> None:
    progress = Progress(Positions(5, 6), AnswerClock(7, 8), 9, {"waiting": 2})
    assert Progress.decode(progress.encode()) == progress
    committed = Progress.committed(progress.positions, progress.commit_metadata())
    assert committed == replace(progress, sizes={})
    assert Progress.committed(Positions(1, 2), "") == Progress(Positions(1, 2))
    with pytest.raises(ValueError, match="damaged"):
        Progress.decode(b"{}")


def test_a_batch_is_kept_with_its_progress(tmp_path: Path) -> None:
    store = open_store(tmp_path / "0", "topics")
    assert store.progress is None
    assert store.next_due_us() is None
    states: dict[bytes, EventState] = {b"a": Waiting(90, [UsedLabel(1.0, 5, 6)]), b"b": Answered(80, b"p", 3)}
    store.write(states, {}, START)
    store.close()
    store = open_store(tmp_path / "0", "topics")
    assert store.progress == replace(START, sizes={"waiting": 1, "unlabelled": 1})
    assert store.read([b"b", b"missing", b"a"]) == {b"b": states[b"b"], b"a": states[b"a"]}
    assert store.next_due_us() == 80
    before = stored_as(states)
    moved: dict[bytes, EventState | None] = {b"a": None, b"b": Answered(95, b"p", 3, UsedLabel(math.inf, 1, 2))}
    store.write(moved, before, store.progress)
    assert store.progress.sizes == {"waiting": 0, "unlabelled": 0, "labelled": 1}
    assert store.due(1000, 10) == ([b"b"], 1000)
    assert store.read([b"a"]) == {}
    store.close()


def test_what_is_due_comes_in_portions_that_never_part_one_time(tmp_path: Path) -> None:
    store = open_store(tmp_path / "0", "topics")
    store.write({b"%d" % n: Closed(60 + n // 3) for n in range(9)}, {}, START)
    assert store.due(59, 100) == ([], 59)
    assert store.due(61, 100) == ([b"0", b"1", b"2", b"3", b"4", b"5"], 61)
    assert store.due(100, 1) == ([b"0", b"1", b"2"], 60)
    assert store.due(100, 4) == ([b"0", b"1", b"2", b"3", b"4", b"5"], 61)
    store.close()


def test_a_store_of_other_topics_is_begun_anew(tmp_path: Path) -> None:
    store = open_store(tmp_path / "0", "topics")
    store.write({b"a": Closed(60)}, {}, START)
    store.close()
    store = open_store(tmp_path / "0", "other topics of the same name")
    assert store.progress is None
    assert store.read([b"a"]) == {}
    store.close()


@pytest.mark.parametrize("file", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_a_damaged_store_is_begun_anew(tmp_path: Path, file: str) -> None:
    store = open_store(tmp_path / "0", "topics")
    store.write({b"a": Closed(60)}, {}, START)
    store.close()
    # Opened once more, so that what was in the log is in a table.
    open_store(tmp_path / "0", "topics").close()
    damaged = list((tmp_path / "0").glob(file))
    assert damaged
    for path in damaged:
        path.write_bytes(b"damaged")
    store = open_store(tmp_path / "0", "topics")
    assert store.progress is None
    store.close()


def test_a_store_is_open_in_one_place_only(tmp_path: Path) -> None:
    store = open_store(tmp_path / "0", "topics")
    with pytest.raises(StoreUnavailableError, match="another process has the join store"):
        open_store(tmp_path / "0", "topics", lock_wait_s=0)
    store.close()
    open_store(tmp_path / "0", "topics", lock_wait_s=0).close()


def test_a_store_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match="file/0"):
        open_store(tmp_path / "file" / "0", "topics")
