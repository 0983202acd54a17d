"""Scores of feature rows that a version has scored before. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from headrace.gateway.bounded_cache import BoundedCache, CacheCounts

VersionKey = tuple[str, bytes]

# A bytes object beside its content, and a float.
OBJECT_BYTES = 33 + 24
VERSION_BYTES = 8
MOST_VERSIONS = 64
"""Versions that are known at a time; there is a new one with each step of learning."""


def _size_of(key: bytes, _: float) -> int:
    return OBJECT_BYTES + len(key)


class InferenceCache:
    """Scores by version and the float32 bytes of a row, which decide the score entirely.

    Rows are the same when their bytes are: 0.0 and -0.0 are two rows.

    Args:
        capacity_bytes: most bytes of all entries; the row used longest ago leaves first. 0 turns the cache off.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._entries: BoundedCache[bytes, float] = BoundedCache(capacity_bytes, _size_of)
        # Numbers are never given twice: what is left of a version that was forgotten is never found again.
        self._numbers: dict[VersionKey, bytes] = {}
        self._next = 0

    @property
    def enabled(self) -> bool:
        """Whether it keeps anything."""
        return self._entries.capacity_bytes > 0

    @property
    def counts(self) -> CacheCounts:
        """Rows found, rows not found, rows that left for others."""
        return self._entries.counts

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries."""
        return self._entries.size_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(
        self, version: VersionKey, rows: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """The scores of rows that are known.

        Args:
            version: name of the version and hash of its file.
            rows: shape (n, width).

        Returns:
            Scores, shape (n,), and whether each is known, shape (n,); the score of one that is not is 0.
        """
        scores = np.zeros(len(rows), np.float32)
        known = np.zeros(len(rows), np.bool_)
        if not self.enabled:
            return scores, known
        get = self._entries.get
        hits = 0
        for i, key in enumerate(self._keys(version, rows)):
            score = get(key)
            if score is not None:
                scores[i] = score
                known[i] = True
                hits += 1
        self.counts.hits += hits
        self.counts.misses += len(rows) - hits
        return scores, known

    def insert(self, version: VersionKey, rows: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> None:
        """Remember scores.

        Args:
            version: name of the version and hash of its file.
            rows: shape (n, width).
            scores: shape (n,).
        """
        if not self.enabled:
            return
        put = self._entries.put
        for key, score in zip(self._keys(version, rows), scores.tolist(), strict=True):
            put(key, score)

    def _keys(self, version: VersionKey, rows: npt.NDArray[np.float32]) -> Iterator[bytes]:
        number = self._numbers.get(version)
        if number is None:
            number = self._numbers[version] = self._next.to_bytes(VERSION_BYTES)
            self._next += 1
            if len(self._numbers) > MOST_VERSIONS:
                del self._numbers[next(iter(self._numbers))]
        content = rows.astype(np.float32, copy=False).tobytes()
        width = len(content) // max(1, len(rows))
        return (content[start : start + width] + number for start in range(0, width * len(rows), width or 1))
