"""How a stored log is laid out: an optional header, an optional coarse section, raw records.

All of it is records of one size, and what is no event has the time -1, so that it lies outside every window and a
reader that knows nothing of it passes over it. The header tells a rewritten log from one that merely has the same
length: the low 32 bits of its id are the epoch, the high ones the number of carrier records that follow. Carriers hold
the coarse section, a piece in each behind its time.

A coarse section is the numbers of its bucket records and of its cell records (4 bytes each) and then these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.pipeline.events import Int64Array

Records = npt.NDArray[Any]
HEADER_TIME = -1
CELL_RECORD = np.dtype([("time", "<i8"), ("measure", "<u2"), ("cell", "<i4"), ("count", "<u4")])
"""Start of the bucket (microseconds), number of the measure, the sketch's cell and how often it was met."""

_MARK = HEADER_TIME.to_bytes(8, "little", signed=True)
_COUNTS = 8


@dataclass(frozen=True)
class CoarseLayout:
    """Layout of coarse sections.

    Attributes:
        bucket: length of a bucket in microseconds.
        record: layout of the bucket records: start of the bucket, then what each measure keeps of it.
    """

    bucket: int
    record: np.dtype[Any]

    def decode(self, section: bytes) -> tuple[Records, Records]:
        """The bucket records and the cell records of a section, which may be empty."""
        if not section:
            return np.zeros(0, self.record), np.zeros(0, CELL_RECORD)
        buckets, cells = np.frombuffer(section, "<u4", 2).tolist()
        middle = _COUNTS + buckets * self.record.itemsize
        return (
            np.frombuffer(section, self.record, buckets, _COUNTS),
            np.frombuffer(section, CELL_RECORD, cells, middle),
        )

    def decode_all(self, sections: Sequence[bytes]) -> tuple[Records, Int64Array, Records, Int64Array]:
        """The bucket records and the cell records of several sections, each with its slot.

        Args:
            sections: one per slot; empty where there is none.
        """
        decoded = [self.decode(section) for section in sections]
        slots = np.arange(len(sections))
        return (
            np.concatenate([buckets for buckets, _ in decoded]),
            np.repeat(slots, [len(buckets) for buckets, _ in decoded]),
            np.concatenate([cells for _, cells in decoded]),
            np.repeat(slots, [len(cells) for _, cells in decoded]),
        )

    @staticmethod
    def encode(buckets: Records, cells: Records) -> bytes:
        """A section; empty when it would hold nothing."""
        if not len(buckets):
            return b""
        return np.array([len(buckets), len(cells)], "<u4").tobytes() + buckets.tobytes() + cells.tobytes()


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
