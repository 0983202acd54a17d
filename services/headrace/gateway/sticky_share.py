"""A share of the entities that stays the same everywhere and for good. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

HASH_BYTES = 8
WHOLE = 1 << 8 * HASH_BYTES


class StickyShare:
    """Says of each entity whether it belongs to a share of them.

    An entity belongs by a hash (BLAKE2b) of its id under a key made of `seed`: the same in every process and after
    every restart, independent between seeds, and with a larger share all those who belonged still do.

    Args:
        seed: texts that tell this draw from others, for example the pipeline and the version.
        share: 0 to 1; what lies outside is cut to it, and what is not a number is 0.

    Attributes:
        share: as it is used.
    """

    def __init__(self, seed: Sequence[str], share: float) -> None:
        self.share = 0.0 if math.isnan(share) else min(1.0, max(0.0, share))
        # Exact: a float times a power of two.
        self._below = int(self.share * WHOLE)
        # Lengths go in, so that no two lists of texts make one key.
        lengths = ",".join(str(len(text)) for text in seed)
        key = hashlib.blake2b("\0".join((lengths, *seed)).encode()).digest()
        self._start = hashlib.blake2b(key=key, digest_size=HASH_BYTES)

    def __contains__(self, entity_id: object) -> bool:
        """Whether an entity belongs."""
        return isinstance(entity_id, str) and self._hash(entity_id) < self._below

    def mask(self, entity_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each of n entities belongs, shape (n,)."""
        return np.fromiter((self._hash(one) < self._below for one in entity_ids), np.bool_, len(entity_ids))

    def _hash(self, entity_id: str) -> int:
        hashed = self._start.copy()
        hashed.update(entity_id.encode())
        return int.from_bytes(hashed.digest())
