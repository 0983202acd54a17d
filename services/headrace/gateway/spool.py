"""The local log of answers: on disk before an answer goes out, in Kafka soon after.

The answers of a batch are first appended as a *pending* run, then claimed for their event ids, then decided: each to
be shipped, or void because another answer was first. So whatever moment the process is killed at, the next one finds
either the decision, or a pending run whose claims it can look up. Writes are not synchronised to the disk: they survive
the process, not the machine.

Segment files `<first sequence number>.spool` hold records: length and CRC-32 (uint32 each, little-endian), kind
(uint8), sequence number of the first answer (uint64), body. The CRC covers what follows it. A record that is cut off or
does not match ends its segment. The body of a run is the number of answers (uint32), the sizes of predictions, keys,
events and event keys (uint32 each), and then these; that of a decision is a byte for each answer of its run.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from headrace.gateway.errors import OverloadedError
from headrace.platform.errors import OperatorError

FRAME = struct.Struct("<II")
HEAD = struct.Struct("<BQ")
COUNT = struct.Struct("<I")
PARTS = 4
SUFFIX = ".spool"
POSITION_FILE = "shipped"
LOCK_FILE = "lock"
SEGMENT_BYTES = 8 << 20
RETRY_AFTER_S = 1.0
LOOKED_AT_S = 0.5
IN_USE = "another process uses the spool in {}: is its instance name taken twice?"


class SpoolError(OperatorError):
    """The spool's directory cannot be used."""


class _Kind(IntEnum):
    PENDING = 4
    DECIDED = 5
    DECISION = 6


@dataclass(slots=True)
class SpoolRun:
    """Answers of one batch on their way to Kafka, n.

    Attributes:
        predictions: serialized `Prediction`s.
        keys: their keys, the event ids.
        events: serialized `Event`s to append too, n; empty bytes for none. An empty list when no answer has one.
        event_keys: keys of the events; as many.
        ship: for each answer whether it is to be shipped; None while that is not decided.
        first: sequence number of the first answer, given when the run is appended.
    """

    predictions: Sequence[bytes]
    keys: Sequence[bytes]
    events: Sequence[bytes] = ()
    event_keys: Sequence[bytes] = ()
    ship: Sequence[bool] | None = None
    first: int = -1
    size: int = 0

    def __len__(self) -> int:
        return len(self.predictions)

    @property
    def behind(self) -> int:
        """Sequence number behind the last answer."""
        return self.first + len(self.predictions)

    def above(self, position: int) -> SpoolRun:
        """What of it lies at or above a sequence number."""
        rows = slice(max(0, position - self.first), None)
        ship = None if self.ship is None else self.ship[rows]
        return SpoolRun(
            self.predictions[rows],
            self.keys[rows],
            self.events[rows],
            self.event_keys[rows],
            ship,
            max(self.first, position),
            self.size,
        )

    def body(self) -> bytes:
        """As it lies in a file."""
        columns = (self.predictions, self.keys, self.events, self.event_keys)
        lengths = [length for column in columns for length in (map(len, column) if column else (0,) * len(self))]
        flat = [part for column in columns for part in column]
        return b"".join((COUNT.pack(len(self)), np.array(lengths, "<u4").tobytes(), *flat))

    @staticmethod
    def of(body: bytes) -> SpoolRun:
        """From a file."""
        (count,) = COUNT.unpack_from(body)
        lengths = np.frombuffer(body, "<u4", count * PARTS, COUNT.size)
        ends = (np.cumsum(lengths, dtype=np.int64) + COUNT.size + lengths.nbytes).tolist()
        begins = [COUNT.size + lengths.nbytes, *ends[:-1]]
        parts = [body[begin:end] for begin, end in zip(begins, ends, strict=True)]
        predictions, keys, events, event_keys = (parts[count * i : count * (i + 1)] for i in range(PARTS))
        return SpoolRun(predictions, keys, events, event_keys)


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
        self._runs: dict[int, SpoolRun] = {}
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
        return not self._runs

    def require_room(self) -> None:
        """Check before work is done for an answer.

        Raises:
            OverloadedError: it is full.
        """
        if self.is_full:
            raise OverloadedError(
                f"{self._bytes} bytes of answers wait for Kafka; at most {self._limit_bytes} may", RETRY_AFTER_S
            )

    def append(self, *runs: SpoolRun) -> None:
        """Append runs in one write; those with `ship` None are pending. Gives them their sequence numbers.

        Raises:
            OverloadedError: it is full, or the disk is.
        """
        self.require_room()
        self._write(self._numbered(runs))
        self._keep(runs)

    def _numbered(self, runs: Sequence[SpoolRun]) -> list[bytes]:
        """Their records; the numbers are taken once the runs are kept."""
        records, first = [], self._next
        for run in runs:
            run.first, first = first, first + len(run)
            record = _framed(_Kind.PENDING if run.ship is None else _Kind.DECIDED, run.first, run.body())
            run.size = len(record)
            records.append(record)
        return records

    def _keep(self, runs: Sequence[SpoolRun]) -> None:
        for run in runs:
            self._runs[run.first] = run
            self._bytes += run.size
            self._next = run.behind
        self._changed()

    def decide(self, run: SpoolRun, ship: Sequence[bool], *more: SpoolRun) -> None:
        """Decide a pending run: each answer to be shipped, or void; in one write with those that take the place of void
        ones.

        A full disk is no error here: what is pending on it will be decided in the same way after a restart.
        """
        decision = _framed(_Kind.DECISION, run.first, bytes(map(bool, ship)))
        with suppress(OverloadedError):
            self._write([*self._numbered(more), decision])
        run.ship = ship
        self._keep(more)

    def pending(self) -> list[SpoolRun]:
        """Runs that are not decided, in order."""
        return [run for run in self._runs.values() if run.ship is None]

    def ready(self, most: int) -> list[SpoolRun]:
        """The oldest runs up to the first that is not decided, as many as have `most` answers, at least one.

        Args:
            most: answers, void ones too.
        """
        found: list[SpoolRun] = []
        count = 0
        for run in self._runs.values():
            count += len(run)
            if run.ship is None or (found and count > most):
                break
            found.append(run)
        return found

    def shipped(self, position: int) -> None:
        """Forget all runs that lie below a sequence number: Kafka has them.

        Raises:
            SpoolError: the directory cannot be used.
        """
        self._position = max(self._position, position)
        self._forget_shipped()
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

    def _forget_shipped(self) -> None:
        while self._runs and (run := next(iter(self._runs.values()))).first < self._position:
            del self._runs[run.first]
            if run.behind > self._position:
                left = run.above(self._position)
                self._runs = {left.first: left, **self._runs}
                return
            self._bytes -= run.size

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
            for kind, first, body, behind in _records(content, path):
                end = behind
                if kind is _Kind.DECISION:
                    if first in self._runs:
                        self._runs[first].ship = [bool(yes) for yes in body]
                    continue
                run = SpoolRun.of(body)
                run.first, run.size = first, FRAME.size + HEAD.size + len(body)
                run.ship = None if kind is _Kind.PENDING else [True] * len(run)
                self._next = max(self._next, run.behind)
                if run.behind > self._position:
                    self._runs[first] = run
                    self._bytes += run.size
            if end < len(content):
                os.truncate(path, end)
        self._forget_shipped()


def _framed(kind: _Kind, sequence: int, body: bytes) -> bytes:
    content = HEAD.pack(kind, sequence) + body
    return FRAME.pack(len(content), zlib.crc32(content)) + content


def _records(content: bytes, path: Path) -> Iterator[tuple[_Kind, int, bytes, int]]:
    """Kind, sequence number, body and end of each whole record."""
    at = 0
    while at + FRAME.size + HEAD.size <= len(content):
        length, crc = FRAME.unpack_from(content, at)
        end = at + FRAME.size + length
        framed = content[at + FRAME.size : end]
        if length < HEAD.size or len(framed) < length or zlib.crc32(framed) != crc:
            return
        kind, sequence = HEAD.unpack_from(framed)
        if kind not in list(_Kind):
            raise SpoolError(
                f"{path} holds records of kind {kind}: another version of Headrace wrote it; it must ship it"
            )
        yield _Kind(kind), sequence, framed[HEAD.size :], end
        at = end


def _segments(directory: Path) -> list[tuple[int, Path]]:
    return sorted((int(path.stem), path) for path in directory.glob(f"*{SUFFIX}"))


def _locked(directory: Path) -> int:
    lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOOKED_AT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Who only looks whether it is in use has it for a moment.
            if time.monotonic() < deadline:
                time.sleep(LOOKED_AT_S / 50)
                continue
            os.close(lock)
            raise SpoolError(IN_USE.format(directory)) from None
        return lock
