"""Which ids of which entities were erased: what was produced before that must not enter the state again.

Erasing removes the logs. The events that they were made from stay in the topics until these drop them, so a worker that
is behind, a reset and a backfill would bring them back. Therefore a hash of each erased id is kept, with the time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from headrace.pipeline.events import Int64Array
from headrace.platform.feature_state import StateKeys, pairs
from headrace.platform.redis_connection import RedisConnections

ERASURES = "erasures"
"""Field of the sources hash: how many erasures there were, so that a worker knows when to read them again."""


def erased_name(entity: str, entity_id: str) -> str:
    """How the hash of erased ids names one: it must not keep what was to be forgotten."""
    return hashlib.blake2b(f"{entity}\0{entity_id}".encode(), digest_size=16).hexdigest()


class Erasures:
    """The erased ids of a deployed pipeline, as this process knows them."""

    def __init__(self, connections: RedisConnections, keys: StateKeys) -> None:
        """Args:
        connections: to Redis.
        keys: names.
        """
        self._connections = connections
        self._keys = keys
        self._read: str | None = None
        self._erased: dict[str, int] = {}

    @property
    def known(self) -> str:
        """How many erasures there were when they were read last, as the sources hash has it."""
        return self._read or ""

    async def refresh(self) -> None:
        """Read the erased ids again if there were erasures since.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        (count,) = await self._connections.execute(("HGET", self._keys.sources, ERASURES))
        await self.follow({ERASURES: (count or b"").decode()})

    async def follow(self, sources: Mapping[str, str]) -> None:
        """Read the erased ids again if there were erasures since.

        Args:
            sources: what is stored beside the fences, by source partition.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        count = sources.get(ERASURES, "")
        if count != self._read:
            (found,) = await self._connections.execute(("HGETALL", self._keys.erased))
            self._erased = {name.decode(): int(at) for name, at in pairs(found)}
            self._read = count

    def mask(
        self, entity: str, ids: Sequence[str], slots: Int64Array, produced_us: Int64Array
    ) -> npt.NDArray[np.bool_] | None:
        """Which of n events were produced before the id of their entity was erased, shape (n,); None for none.

        Args:
            entity: name of the entity.
            ids: distinct ids.
            slots: for each event the position of its id among them, shape (n,).
            produced_us: production time of each event in microseconds, shape (n,).
        """
        if not self._erased:
            return None
        at = np.array([self._erased.get(erased_name(entity, one), -1) for one in ids], np.int64)
        return produced_us <= at[slots] if (at >= 0).any() else None

    def covers(self, entity: str, entity_id: str, produced_us: int) -> bool:
        """Whether an event of that time belongs to an id that was erased since."""
        return bool(self._erased) and produced_us <= self._erased.get(erased_name(entity, entity_id), -1)
