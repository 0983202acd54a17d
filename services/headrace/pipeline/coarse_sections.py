"""How a stored log is laid out: an optional header, an optional coarse section, raw records.

All of it is records of one size, and what is no event has the time -1, so that it lies outside every window and a
reader that knows nothing of it passes over it. The header tells a rewritten log from one that merely has the same
length: the low 32 bits of its id are the epoch, the high ones the number of carrier records that follow. Carriers hold
the coarse section, a piece in each behind its time.

A coarse section is the number of its bucket records (4 bytes), the bucket records, and for each sketch its cells,
bucket after bucket; how many each bucket has stands in its record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.pipeline.events import Int64Array

Records = npt.NDArray[Any]
HEADER_TIME = -1
CELL_RECORD = np.dtype([("time", "<i8"), ("cell", "<i4"), ("count", "<u4")])
"""A sketch's cell in memory: start of the bucket (microseconds), the cell and how often it was met."""

_MARK = HEADER_TIME.to_bytes(8, "little", signed=True)
_COUNT_BYTES = 4

Cells = dict[int, Records]
"""Cell records by number of the sketch's measure, in the order of their buckets."""


@dataclass(frozen=True)
class CoarseLayout:
    """Layout of coarse sections.

    Attributes:
        bucket: length of a bucket in microseconds.
        columns: what each measure keeps of a bucket.
        sketches: numbers of the sketches' measures with the stored layout of their cells.
    """

    bucket: int
    columns: tuple[tuple[str, str], ...]
    sketches: tuple[tuple[int, np.dtype[Any]], ...]

    @cached_property
    def record(self) -> np.dtype[Any]:
        """Layout of the bucket records: start of the bucket, the columns, then the number of cells of each sketch."""
        return np.dtype([("time", "<i8"), *self.columns, *((f"{number}.n", "<u2") for number, _ in self.sketches)])

    def decode(self, section: bytes) -> tuple[Records, Cells]:
        """The bucket records and the cells of a section, which may be empty."""
        buckets, _, cells = self.decode_all([section])
        return buckets, {number: found for number, (found, _) in cells.items()}

    def decode_all(
        self, sections: Sequence[bytes]
    ) -> tuple[Records, Int64Array, dict[int, tuple[Records, Int64Array]]]:
        """The bucket records with their slots, and the cells of each sketch with theirs.

        Args:
            sections: one per slot; empty where there is none.
        """
        size = self.record.itemsize
        counts = [int.from_bytes(section[:_COUNT_BYTES], "little") for section in sections]
        parts = [section[_COUNT_BYTES : _COUNT_BYTES + n * size] for section, n in zip(sections, counts, strict=True)]
        buckets = np.frombuffer(b"".join(parts), self.record)
        slots = np.repeat(np.arange(len(sections)), counts)
        begins = [_COUNT_BYTES + n * size for n in counts]
        found = {}
        for number, stored in self.sketches:
            of_bucket = buckets[f"{number}.n"].astype(np.int64)
            of_slot = np.bincount(slots, of_bucket, len(sections)).astype(np.int64).tolist()
            ends = [begin + n * stored.itemsize for begin, n in zip(begins, of_slot, strict=True)]
            raw = np.frombuffer(b"".join([s[b:e] for s, b, e in zip(sections, begins, ends, strict=True)]), stored)
            cells = np.zeros(len(raw), CELL_RECORD)
            cells["time"] = np.repeat(buckets["time"], of_bucket)
            cells["cell"] = raw["cell"]
            cells["count"] = raw["count"] if "count" in (stored.names or ()) else 1
            found[number] = cells, np.repeat(slots, of_bucket)
            begins = ends
        return buckets, slots, found

    def encode(self, buckets: Records, cells: Cells) -> bytes:
        """A section; empty when it would hold nothing.

        Args:
            buckets: bucket records by time; their numbers of cells need not be set.
            cells: by number of the sketch, by time.
        """
        if not len(buckets):
            return b""
        buckets = buckets.copy()
        pieces = []
        for number, stored in self.sketches:
            packed = np.zeros(len(cells[number]), stored)
            for name in stored.names or ():
                packed[name] = cells[number][name]
            at = np.searchsorted(buckets["time"], cells[number]["time"])
            buckets[f"{number}.n"] = np.bincount(at, minlength=len(buckets))
            pieces.append(packed.tobytes())
        return b"".join([len(buckets).to_bytes(_COUNT_BYTES, "little"), buckets.tobytes(), *pieces])


def header(record: np.dtype[Any], epoch: int, carriers: int = 0) -> bytes:
    """The first record of a rewritten log.

    Args:
        record: layout of the log's raw records.
        epoch: how often it was rewritten.
        carriers: number of carrier records that follow.
    """
    first = np.zeros(1, record)
    first["time"], first["id"] = HEADER_TIME, (carriers << 32) | (epoch & 0xFFFFFFFF)
    return first.tobytes()


def read_header(value: bytes) -> tuple[int, int] | None:
    """Epoch and number of carrier records of a stored log; None when it was never rewritten."""
    if value[:8] != _MARK:
        return None
    packed = int.from_bytes(value[8:16], "little")
    return packed & 0xFFFFFFFF, packed >> 32


def join_log(record: np.dtype[Any], epoch: int, section: bytes, raw: Records) -> bytes:
    """A rewritten log.

    Args:
        record: layout of its raw records.
        epoch: how often it was rewritten.
        section: coarse section, empty for none.
        raw: its raw records.
    """
    piece = carried_bytes(record)
    count = -(-len(section) // piece)
    carriers = np.empty((count, record.itemsize), np.uint8)
    carriers[:, :8] = np.frombuffer(_MARK, np.uint8)
    carriers[:, 8:] = np.frombuffer(section.ljust(count * piece, b"\0"), np.uint8).reshape(count, piece)
    return header(record, epoch, count) + carriers.tobytes() + raw.tobytes()


def read_section(value: bytes, record: np.dtype[Any]) -> bytes:
    """The coarse section of a stored log, padded at its end; empty when there is none."""
    found = read_header(value)
    if found is None or not found[1]:
        return b""
    size, (_, count) = record.itemsize, found
    return np.frombuffer(value, np.uint8, count * size, size).reshape(count, size)[:, 8:].tobytes()


def carried_bytes(record: np.dtype[Any]) -> int:
    """Bytes of a coarse section that one carrier record holds."""
    return record.itemsize - 8
