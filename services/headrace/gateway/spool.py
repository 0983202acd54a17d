"""The local log of answers: on disk before an answer goes out, in Kafka soon after.

An answer is first appended as *pending*, then claimed for its event id, then decided: to be shipped, or void because
another answer was first. So whatever moment the process is killed at, the next one finds either the decision, or a
pending answer whose claim it can look up. Writes are not synchronised to the disk: they survive the process, not the
machine.

Segment files `<first sequence number>.spool` hold records: length and CRC-32 (uint32 each, little-endian), kind
(uint8), sequence number (uint64), body. The CRC covers what follows it. A record that is cut off or does not match
ends its segment.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from headrace.gateway.errors import OverloadedError
from headrace.platform.errors import OperatorError

FRAME = struct.Struct("<II")
HEAD = struct.Struct("<BQ")
SIZES = struct.Struct("<IIII")
SUFFIX = ".spool"
POSITION_FILE = "shipped"
LOCK_FILE = "lock"
SEGMENT_BYTES = 8 << 20
RETRY_AFTER_S = 1.0


class SpoolError(OperatorError):
    """The spool's directory cannot be used."""


class _Kind(IntEnum):
    PENDING = 1
    DECIDED = 2
    DECISION = 3


@dataclass(slots=True)
class SpoolEntry:
    """One answer on its way to Kafka.

    Attributes:
        prediction: serialized `Prediction`.
        key: its key, the event id.
        event: serialized `Event` to append too; empty for none.
        event_key: key of the event.
        sequence: its number, given when it is appended.
        ship: whether it is to be shipped; None while that is not decided.
    """

    prediction: bytes
    key: bytes
    event: bytes = b""
    event_key: bytes = b""
    sequence: int = -1
    ship: bool | None = None

    @property
    def size(self) -> int:
        """Bytes of its record."""
        parts = len(self.prediction) + len(self.key) + len(self.event) + len(self.event_key)
        return FRAME.size + HEAD.size + SIZES.size + parts


class Spool:
    """Answers that are not in Kafka yet, in order.

    Args:
        directory: of the segment files, of this process alone; None keeps the answers in memory only.
        limit_bytes: most bytes that may wait.
        position: sequence number up to which (exclusive) Kafka has everything.
        changed: called when something became ready to ship.
        segment_bytes: size at which a new file is begun.

    Raises:
        SpoolError: the directory cannot be used, or another process uses it.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        limit_bytes: int,
        position: int,
        changed: Callable[[], None],
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._segment_bytes = segment_bytes
        self._changed = changed
        self._entries: dict[int, SpoolEntry] = {}
        self._bytes = 0
        self._file: int | None = None
        self._file_bytes = 0
        self._lock: int | None = None
        self._segments: list[tuple[int, Path]] = []
        self._position = position
        self._next = position
        if directory is not None:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                self._lock = _locked(directory)
                self._recover(directory)
                self._begin_segment()
            except OSError as error:
                raise SpoolError(f"the spool in {directory} cannot be used: {error.strerror}") from error

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the answers that wait to be shipped."""
        return self._bytes

    @property
    def is_full(self) -> bool:
        """Whether an answer would be refused."""
        return self._bytes >= self._limit_bytes

    @property
    def is_empty(self) -> bool:
        """Whether Kafka has everything."""
        return not self._entries

    def require_room(self) -> None:
        """Check before work is done for an answer.

        Raises:
            OverloadedError: it is full.
        """
        if self.is_full:
            raise OverloadedError(
                f"{self._bytes} bytes of answers wait for Kafka; at most {self._limit_bytes} may", RETRY_AFTER_S
            )

    def append(self, entries: Sequence[SpoolEntry]) -> None:
        """Append answers; those with `ship` None are pending. Gives them their sequence numbers.

        Raises:
            OverloadedError: it is full, or the disk is.
        """
        self.require_room()
        self._write(self._numbered(entries))
        self._next += len(entries)
        self._keep(entries)

    def _numbered(self, entries: Sequence[SpoolEntry]) -> list[bytes]:
        records = []
        for sequence, entry in enumerate(entries, self._next):
            entry.sequence = sequence
            kind = _Kind.PENDING if entry.ship is None else _Kind.DECIDED
            sizes = SIZES.pack(len(entry.prediction), len(entry.key), len(entry.event), len(entry.event_key))
            body = b"".join((sizes, entry.prediction, entry.key, entry.event, entry.event_key))
            records.append(_framed(kind, sequence, body))
        return records

    def _keep(self, entries: Sequence[SpoolEntry]) -> None:
        for entry in entries:
            self._entries[entry.sequence] = entry
            self._bytes += entry.size
        self._changed()

    def decide(self, entries: Sequence[SpoolEntry], ship: Sequence[bool], more: Sequence[SpoolEntry] = ()) -> None:
        """Decide pending answers: to be shipped, or void; in one write with answers that take the place of void ones.

        A full disk is no error here: what is pending on it will be decided in the same way after a restart.
        """
        body = b"".join(HEAD.pack(yes, entry.sequence) for entry, yes in zip(entries, ship, strict=True))
        records = self._numbered(more)
        self._next += len(more)
        with suppress(OverloadedError):
            self._write([*records, _framed(_Kind.DECISION, self._next, body)])
        for entry, yes in zip(entries, ship, strict=True):
            entry.ship = yes
        self._keep(more)

    def pending(self) -> list[SpoolEntry]:
        """Answers that are not decided, in order."""
        return [entry for entry in self._entries.values() if entry.ship is None]

    def ready(self, most: int) -> list[SpoolEntry]:
        """The oldest answers, void ones too, up to the first that is not decided."""
        found: list[SpoolEntry] = []
        for entry in self._entries.values():
            if entry.ship is None or len(found) == most:
                break
            found.append(entry)
        return found

    def shipped(self, position: int) -> None:
        """Forget everything below a sequence number: Kafka has it.

        Raises:
            SpoolError: the directory cannot be used.
        """
        while self._entries and (first := next(iter(self._entries))) < position:
            self._bytes -= self._entries.pop(first).size
        self._position = max(self._position, position)
        self._next = max(self._next, position)
        if self._directory is None:
            return
        done = [path for (_, path), (behind, _) in itertools.pairwise(self._segments) if behind <= self._position]
        if not done:
            return
        try:
            self._note_position(self._directory)
            for path in done:
                path.unlink()
        except OSError as error:
            raise SpoolError(f"the spool in {self._directory} cannot be used: {error.strerror}") from error
        self._segments = self._segments[len(done) :]

    def close(self) -> None:
        """Close the files; what waits stays in them."""
        if self._directory is not None and self._lock is not None:
            with suppress(OSError):
                self._note_position(self._directory)
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._lock = None

    def _note_position(self, directory: Path) -> None:
        # Kafka forgets the position of a gateway that is away for a week; this file does not.
        draft = directory / f".{POSITION_FILE}"
        draft.write_text(str(self._position))
        draft.replace(directory / POSITION_FILE)

    def _write(self, records: Sequence[bytes]) -> None:
        if self._file is None:
            return
        data = b"".join(records)
        try:
            if self._file_bytes >= self._segment_bytes:
                self._begin_segment()
            written = os.write(self._file, data)
            if written != len(data):
                raise OSError(None, "the disk is full")
            self._file_bytes += written
        except OSError as error:
            os.ftruncate(self._file, self._file_bytes)
            os.lseek(self._file, self._file_bytes, os.SEEK_SET)
            raise OverloadedError(f"the answer cannot be logged: {error.strerror}", RETRY_AFTER_S) from error

    def _begin_segment(self) -> None:
        assert self._directory is not None
        path = self._directory / f"{self._next:020d}{SUFFIX}"
        # A segment of that number can be there only if nothing of it was usable.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        if self._file is not None:
            os.close(self._file)
        self._file, self._file_bytes = file, 0
        self._segments = _segments(self._directory)

    def _recover(self, directory: Path) -> None:
        noted = directory / POSITION_FILE
        if noted.exists():
            self._position = max(self._position, int(noted.read_text() or 0))
        self._next = self._position
        for _, path in _segments(directory):
            content = path.read_bytes()
            end = 0
            for kind, sequence, body, behind in _records(content):
                end = behind
                if kind is _Kind.DECISION:
                    for yes, decided in HEAD.iter_unpack(body):
                        if decided in self._entries:
                            self._entries[decided].ship = bool(yes)
                    continue
                self._next = max(self._next, sequence + 1)
                if sequence >= self._position:
                    entry = _entry(kind, sequence, body)
                    self._entries[sequence] = entry
                    self._bytes += entry.size
            if end < len(content):
                os.truncate(path, end)


def _framed(kind: _Kind, sequence: int, body: bytes) -> bytes:
    content = HEAD.pack(kind, sequence) + body
    return FRAME.pack(len(content), zlib.crc32(content)) + content


def _records(content: bytes) -> Iterator[tuple[_Kind, int, bytes, int]]:
    """Kind, sequence number, body and end of each whole record."""
    at = 0
    while at + FRAME.size + HEAD.size <= len(content):
        length, crc = FRAME.unpack_from(content, at)
        end = at + FRAME.size + length
        framed = content[at + FRAME.size : end]
        if length < HEAD.size or len(framed) < length or zlib.crc32(framed) != crc:
            return
        kind, sequence = HEAD.unpack_from(framed)
        yield _Kind(kind), sequence, framed[HEAD.size :], end
        at = end


def _entry(kind: _Kind, sequence: int, body: bytes) -> SpoolEntry:
    parts, at = [], SIZES.size
    for size in SIZES.unpack_from(body):
        parts.append(body[at : at + size])
        at += size
    prediction, key, event, event_key = parts
    return SpoolEntry(prediction, key, event, event_key, sequence, None if kind is _Kind.PENDING else True)


def _segments(directory: Path) -> list[tuple[int, Path]]:
    return sorted((int(path.stem), path) for path in directory.glob(f"*{SUFFIX}"))


def _locked(directory: Path) -> int:
    lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SpoolError(f"another process uses the spool in {directory}: is its instance name taken twice?") from None
    return lock
