"""A cache that holds a number of bytes. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_BYTES = 200
"""What an entry takes beside its key and value: its places in the table of the dictionary and in the order of use. As
measured with entries coming and going (CPython 3.11: 180)."""


@dataclass
class CacheCounts:
    """What a cache has seen since the start.

    Attributes:
        hits: look-ups that found something.
        misses: look-ups that found nothing.
        evictions: entries that had to leave for others.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0


class BoundedCache(Generic[K, V]):
    """Entries by key; the one that was used longest ago leaves first when the bytes are used up.

    Args:
        capacity_bytes: most bytes of all entries; 0 keeps nothing.
        size_of: bytes that a key and its value take, without `ENTRY_BYTES`. The same whenever it is asked.

    Attributes:
        capacity_bytes: as given.
        size_bytes: bytes of all entries.
        counts: filled by whoever looks up, because only they know what a hit is.
    """

    def __init__(self, capacity_bytes: int, size_of: Callable[[K, V], int]) -> None:
        self.capacity_bytes = capacity_bytes
        self.size_bytes = 0
        self.counts = CacheCounts()
        self._size_of = size_of
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value of a key, which counts as used now."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: K, value: V) -> None:
        """Set the value of a key. One that alone is larger than the cache is not kept."""
        self.discard(key)
        size = self._size_of(key, value) + ENTRY_BYTES
        if size > self.capacity_bytes:
            return
        self._entries[key] = value
        self.size_bytes += size
        while self.size_bytes > self.capacity_bytes:
            oldest, dropped = self._entries.popitem(last=False)
            self.size_bytes -= self._size_of(oldest, dropped) + ENTRY_BYTES
            self.counts.evictions += 1

    def discard(self, key: K) -> None:
        """Drop a key, if it is there."""
        found = self._entries.pop(key, None)
        if found is not None:
            self.size_bytes -= self._size_of(key, found) + ENTRY_BYTES
