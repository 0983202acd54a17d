"""The spool after whatever end of its process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.errors import OverloadedError
from headrace.gateway.spool import Spool, SpoolEntry, SpoolError


def nothing() -> None:
    pass


def opened(directory: Path, position: int = 0, limit: int = 1 << 20, segment: int = 1 << 20) -> Spool:
    return Spool(directory, limit_bytes=limit, position=position, changed=nothing, segment_bytes=segment)


def answer(name: str, *, ship: bool | None = None, event: bytes = b"") -> SpoolEntry:
    return SpoolEntry(f"prediction of {name}".encode(), name.encode(), event, b"customer" if event else b"", ship=ship)


def keys(entries: list[SpoolEntry]) -> list[str]:
    return [entry.key.decode() for entry in entries]


def test_what_was_decided_is_ready_after_a_kill_and_what_was_not_is_pending(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    a, b, c, d = answer("a", event=b"event of a"), answer("b"), answer("c"), answer("d", ship=True)
    spool.append([a, b])
    spool.append([c, d])
    spool.decide([a, b], [True, False])
    assert [entry.ship for entry in spool.ready(10)] == [True, False]
    spool.close()  # the lock goes, as with the process
    again = opened(tmp_path)
    assert [(entry.key, entry.ship) for entry in again.ready(10)] == [(b"a", True), (b"b", False)]
    assert again.ready(10)[0] == a
    assert keys(again.pending()) == ["c"]
    again.decide(again.pending(), [True])
    assert keys(again.ready(10)) == ["a", "b", "c", "d"]
    again.append([answer("e", ship=True)])
    assert [entry.sequence for entry in again.ready(10)] == [0, 1, 2, 3, 4]


def test_what_kafka_has_is_skipped_after_a_kill(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.append([answer(name, ship=True) for name in "abcd"])
    spool.close()
    again = opened(tmp_path, position=3)
    assert keys(again.ready(10)) == ["d"]
    again.shipped(4)
    assert again.is_empty
    assert again.waiting_bytes == 0
    again.close()
    # Kafka has forgotten the position; the spool has not.
    assert opened(tmp_path, position=0).is_empty


def test_numbers_go_on_where_kafka_stands_when_the_files_are_lost(tmp_path: Path) -> None:
    spool = opened(tmp_path, position=100)
    spool.append([answer("a", ship=True)])
    assert spool.ready(10)[0].sequence == 100


@settings(max_examples=200, deadline=None)
@given(names=st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5), data=st.data())
def test_a_torn_tail_is_cut_off(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    spool = opened(directory)
    ends = [0]
    segment = next(directory.glob("*.spool"))
    for name in names:
        spool.append([answer(name, ship=True)])
        ends.append(segment.stat().st_size)
    spool.close()
    cut = data.draw(st.integers(0, ends[-1]))
    content = segment.read_bytes()[:cut]
    if content and data.draw(st.booleans()):
        # Not only cut off: the last byte written is wrong.
        content = content[:-1] + bytes([content[-1] ^ 0xFF])
        cut -= 1
    segment.write_bytes(content)
    whole = sum(end <= cut for end in ends[1:])
    again = opened(directory)
    assert keys(again.ready(10)) == names[:whole]
    again.append([answer("new", ship=True)])
    again.close()
    assert keys(opened(directory).ready(10)) == [*names[:whole], "new"]


def test_segments_are_removed_when_kafka_has_them(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment=100)
    for number in range(10):
        spool.append([answer(str(number), ship=True)])
    assert len(list(tmp_path.glob("*.spool"))) > 3
    spool.shipped(9)
    assert keys(spool.ready(10)) == ["9"]
    assert len(list(tmp_path.glob("*.spool"))) <= 2
    spool.close()
    assert keys(opened(tmp_path, position=9).ready(10)) == ["9"]


@pytest.mark.parametrize("directory", [True, False])
def test_a_full_spool_refuses_and_takes_again_what_fits(tmp_path: Path, *, directory: bool) -> None:
    spool = Spool(tmp_path if directory else None, limit_bytes=200, position=0, changed=nothing)
    spool.append([answer("a", ship=True)] * 1)
    while not spool.is_full:
        spool.append([answer("b", ship=True)])
    with pytest.raises(OverloadedError):
        spool.append([answer("c", ship=True)])
    with pytest.raises(OverloadedError):
        spool.require_room()
    spool.shipped(spool.ready(100)[-1].sequence + 1)
    spool.require_room()
    spool.append([answer("d", ship=True)])


def test_an_answer_that_is_not_decided_holds_up_those_behind_it(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    a = answer("a")
    spool.append([a, answer("b", ship=True)])
    assert spool.ready(10) == []
    spool.decide([a], [False], [answer("c", ship=True)])
    assert keys(spool.ready(10)) == ["a", "b", "c"]
    assert keys(spool.ready(2)) == ["a", "b"]


def test_two_processes_cannot_share_a_spool(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(SpoolError, match="another process"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_a_disk_that_is_full_refuses_and_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = opened(tmp_path)
    spool.append([answer("a", ship=True)])
    import os

    write: Callable[[int, bytes], int] = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: write(file, data[:10]))
        with pytest.raises(OverloadedError):
            spool.append([answer("b", ship=True)])
    spool.append([answer("c", ship=True)])
    assert keys(spool.ready(10)) == ["a", "c"]
    spool.close()
    assert keys(opened(tmp_path).ready(10)) == ["a", "c"]
