"""How a stored log is laid out: an optional header, an optional coarse section, raw records.

The header is a raw record with the time -1. It lies outside every window, and it tells a rewritten log from one that
merely has the same length: the low 32 bits of its id are the epoch, the high ones the bytes of the coarse section.

A coarse section is the number of its bucket records (4 bytes), the bucket records, and the cell records of sketches.
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

_COUNT_BYTES = 4


@dataclass(frozen=True)
class CoarseLayout:
    """Layout of coarse sections.

    Attributes:
        bucket: length of a bucket in microseconds.
        record: layout of the bucket records: start of the bucket, then what each measure keeps of it.
    """

    bucket: int
    record: np.dtype[Any]

    def decode(self, sections: Sequence[bytes]) -> tuple[Records, Int64Array, Records, Int64Array]:
        """The bucket records and the cell records of several sections, each with its slot.

        Args:
            sections: one per slot; empty where there is none.
        """
        buckets, cells = [], []
        for section in sections:
            end = _COUNT_BYTES + int.from_bytes(section[:_COUNT_BYTES], "little") * self.record.itemsize
            buckets.append(section[_COUNT_BYTES:end])
            cells.append(section[end:])
        slots = np.arange(len(sections))
        return (
            np.frombuffer(b"".join(buckets), self.record),
            np.repeat(slots, [len(part) // self.record.itemsize for part in buckets]),
            np.frombuffer(b"".join(cells), CELL_RECORD),
            np.repeat(slots, [len(part) // CELL_RECORD.itemsize for part in cells]),
        )

    @staticmethod
    def encode(buckets: Records, cells: Records) -> bytes:
        """A section; empty when it would hold nothing."""
        if not len(buckets):
            return b""
        return len(buckets).to_bytes(_COUNT_BYTES, "little") + buckets.tobytes() + cells.tobytes()


def header(record: np.dtype[Any], epoch: int, coarse_bytes: int = 0) -> bytes:
    """The first record of a rewritten log.

    Args:
        record: layout of the log's raw records.
        epoch: how often it was rewritten.
        coarse_bytes: length of the coarse section that follows.
    """
    first = np.zeros(1, record)
    first["time"], first["id"] = HEADER_TIME, (coarse_bytes << 32) | (epoch & 0xFFFFFFFF)
    return first.tobytes()


def read_header(value: bytes, record: np.dtype[Any]) -> tuple[int, int, int]:
    """Epoch, bytes of the header and bytes of the coarse section of a stored log; zeros when it was never rewritten."""
    if len(value) < record.itemsize or int.from_bytes(value[:8], "little", signed=True) != HEADER_TIME:
        return 0, 0, 0
    packed = int.from_bytes(value[8:16], "little")
    return packed & 0xFFFFFFFF, record.itemsize, packed >> 32


def split_logs(values: Sequence[bytes], record: np.dtype[Any]) -> tuple[list[bytes], list[bytes]]:
    """The coarse sections and the raw records of stored logs, headers left out.

    Args:
        values: stored logs.
        record: layout of their raw records; time and id come first.
    """
    sections, raw = [], []
    for value in values:
        _, start, coarse_bytes = read_header(value, record)
        sections.append(value[start : start + coarse_bytes])
        raw.append(value[start + coarse_bytes :])
    return sections, raw
