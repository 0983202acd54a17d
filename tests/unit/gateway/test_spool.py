"""The spool after whatever end of its process."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.errors import OverloadedError
from headrace.gateway.spool import FRAME, HEAD, Spool, SpoolError, SpoolRun


def nothing() -> None:
    pass


def opened(directory: Path, position: int = 0, limit: int = 1 << 20, segment: int = 1 << 20) -> Spool:
    return Spool(directory, limit_bytes=limit, position=position, changed=nothing, segment_bytes=segment)


def run(*names: str, ship: bool | None = None, event: bytes = b"") -> SpoolRun:
    return SpoolRun(
        [f"prediction of {name}".encode() for name in names],
        [name.encode() for name in names],
        [event] * len(names) if event else [],
        [b"customer"] * len(names) if event else [],
        ship=None if ship is None else [ship] * len(names),
    )


def keys(runs: list[SpoolRun]) -> list[str]:
    return [key.decode() for run in runs for key in run.keys]


def parts(run: SpoolRun) -> tuple[list[bytes], ...]:
    return list(run.predictions), list(run.keys), list(run.events), list(run.event_keys)


def test_what_was_decided_is_ready_after_a_kill_and_what_was_not_is_pending(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    ab, c, d = run("a", "b", event=b"event"), run("c"), run("d", ship=True)
    spool.append(ab)
    spool.append(c, d)
    spool.decide(ab, [True, False])
    assert [one.ship for one in spool.ready(10)] == [[True, False]]
    spool.close()  # the lock goes, as with the process
    again = opened(tmp_path)
    assert [one.ship for one in again.ready(10)] == [[True, False]]
    assert parts(again.ready(10)[0]) == parts(ab)
    assert keys(again.pending()) == ["c"]
    again.decide(again.pending()[0], [True])
    assert keys(again.ready(10)) == ["a", "b", "c", "d"]
    again.append(run("e", ship=True))
    assert [(one.first, one.behind) for one in again.ready(10)] == [(0, 2), (2, 3), (3, 4), (4, 5)]


def test_what_another_version_wrote_is_refused(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.close()
    segment = next(tmp_path.glob("*.spool"))
    content = HEAD.pack(1, 0) + b"body"
    segment.write_bytes(FRAME.pack(len(content), zlib.crc32(content)) + content)
    with pytest.raises(SpoolError, match="another version"):
        opened(tmp_path)


def test_what_kafka_has_is_skipped_after_a_kill(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.append(run(*"abcd", ship=True))
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
    spool.append(run("a", ship=True))
    assert spool.ready(10)[0].first == 100


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
        spool.append(run(name, ship=True))
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
    again.append(run("new", ship=True))
    again.close()
    assert keys(opened(directory).ready(10)) == [*names[:whole], "new"]


def test_segments_are_removed_when_kafka_has_them(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment=100)
    for number in range(10):
        spool.append(run(str(number), ship=True))
    assert len(list(tmp_path.glob("*.spool"))) > 3
    spool.shipped(9)
    assert keys(spool.ready(10)) == ["9"]
    assert len(list(tmp_path.glob("*.spool"))) <= 2
    spool.close()
    assert keys(opened(tmp_path, position=9).ready(10)) == ["9"]


@pytest.mark.parametrize("directory", [True, False])
def test_a_full_spool_refuses_and_takes_again_what_fits(tmp_path: Path, *, directory: bool) -> None:
    spool = Spool(tmp_path if directory else None, limit_bytes=200, position=0, changed=nothing)
    spool.append(run("a", ship=True))
    while not spool.is_full:
        spool.append(run("b", ship=True))
    with pytest.raises(OverloadedError):
        spool.append(run("c", ship=True))
    with pytest.raises(OverloadedError):
        spool.require_room()
    spool.shipped(spool.ready(100)[-1].behind)
    spool.require_room()
    spool.append(run("d", ship=True))


def test_an_answer_that_is_not_decided_holds_up_those_behind_it(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    a = run("a")
    spool.append(a, run("b", ship=True))
    assert spool.ready(10) == []
    spool.decide(a, [False], run("c", ship=True))
    assert keys(spool.ready(10)) == ["a", "b", "c"]
    assert keys(spool.ready(2)) == ["a", "b"]
    assert keys(spool.ready(0)) == ["a"]


def test_a_run_that_kafka_has_in_part_is_cut(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    first = run("a", "b", "c", event=b"event")
    spool.append(first, run("d", ship=True))
    spool.decide(first, [True, False, True])
    spool.shipped(1)
    assert [(one.first, list(one.keys), one.ship) for one in spool.ready(10)] == [
        (1, [b"b", b"c"], [False, True]),
        (3, [b"d"], [True]),
    ]
    spool.shipped(4)
    assert (spool.is_empty, spool.waiting_bytes) == (True, 0)


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
    spool.append(run("a", ship=True))
    import os

    write: Callable[[int, bytes], int] = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: write(file, data[:10]))
        with pytest.raises(OverloadedError):
            spool.append(run("b", ship=True))
    spool.append(run("c", ship=True))
    assert keys(spool.ready(10)) == ["a", "c"]
    spool.close()
    assert keys(opened(tmp_path).ready(10)) == ["a", "c"]
