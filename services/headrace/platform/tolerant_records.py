"""Reading records whose header names are not UTF-8.

Kafka takes such names from clients that do not check them, and aiokafka ends the read with a `UnicodeDecodeError`, at
every attempt again: one record would stop its partition for good. Here the wrong bytes are written out in hexadecimal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

BASE_OFFSET_BYTES = 8
LENGTH_BYTES = 4


class TolerantRecords:
    """The batches of one partition in the answer to a fetch, as aiokafka's `MemoryRecords`."""

    def __init__(self, data: bytes) -> None:
        """Args:
        data: batches, of which the last may be cut.
        """
        self._data = data
        self._records: Any = MemoryRecords(data)
        self._position = 0
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes

    def next_batch(self) -> _TolerantBatch:
        """The next batch."""
        start, head = self._position, self._position + BASE_OFFSET_BYTES
        length = int.from_bytes(self._data[head : head + LENGTH_BYTES], "big")
        self._position = head + LENGTH_BYTES + length
        return _TolerantBatch(self._records.next_batch(), memoryview(self._data)[start : self._position])


class _TolerantBatch:
    """A batch that is read once more, slowly, where a header name in it is not UTF-8."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._batch
        except UnicodeDecodeError:
            # From its beginning: the consumer passes over offsets that it has had.
            again: Any = _DefaultRecordBatchPy(bytearray(self._data))
            again._maybe_uncompress()
            again._buffer = _LenientBuffer(again._buffer)
            yield from again


class _LenientBuffer(bytearray):
    """Bytes whose slices can be decoded whatever they are."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _LenientSlice(found) if isinstance(index, slice) else found


class _LenientSlice(bytes):
    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, "backslashreplace")


def read_tolerantly() -> None:
    """Let every consumer of this process read such records."""
    fetcher.MemoryRecords = TolerantRecords
