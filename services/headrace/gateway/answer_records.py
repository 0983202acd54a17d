"""The first answer to each event id: in Redis for all gateway processes, in this process for when Redis is away.

A record is a serialized `Prediction`. Claiming an id sets its record only where there is none, in one step, so of two
concurrent answers to one id exactly one becomes the answer, and the other caller gets that one as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import redis.exceptions

from headrace.gateway.bounded_cache import BoundedCache, CacheCounts
from headrace.gateway.circuit_breaker import CircuitBreaker
from headrace.gateway.errors import StateUnreadableError
from headrace.platform.redis_connection import RedisConnections

REDIS_AWAY = (redis.exceptions.RedisError, TimeoutError, OSError)


class LocalRecords:
    """The records of this process.

    Args:
        window_s: how long a record counts, in seconds.
        capacity_bytes: most bytes of all records; the one used longest ago leaves first.
        clock: monotonic seconds.
    """

    def __init__(self, window_s: float, capacity_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._clock = clock
        self._records: BoundedCache[str, tuple[float, bytes]] = BoundedCache(capacity_bytes, _size_of)

    @property
    def counts(self) -> CacheCounts:
        """Ids found, ids not found, records that left for others."""
        return self._records.counts

    @property
    def size_bytes(self) -> int:
        """Bytes of all records."""
        return self._records.size_bytes

    def __len__(self) -> int:
        return len(self._records)

    def get(self, event_id: str) -> bytes | None:
        """The record of an id."""
        found = self._records.get(event_id)
        if found is not None and found[0] > self._clock():
            self.counts.hits += 1
            return found[1]
        self.counts.misses += 1
        return None

    def claim(self, event_id: str, record: bytes) -> bytes | None:
        """Set the record of an id unless there is one, which is returned."""
        found = self.get(event_id)
        if found is None:
            self.put(event_id, record)
        return found

    def put(self, event_id: str, record: bytes) -> None:
        """Set the record of an id."""
        self._records.put(event_id, (self._clock() + self._window_s, record))


def _size_of(event_id: str, kept: tuple[float, bytes]) -> int:
    # A text of at most four bytes a character, a tuple, a float and a bytes object.
    return 49 + 4 * len(event_id) + 56 + 24 + 33 + len(kept[1])


class AnswerRecords:
    """The records of one deployed pipeline.

    Args:
        connections: to Redis; stay the caller's.
        deployed: deployed pipeline name.
        local: the records of this process.
        window_s: how long a record counts, in seconds.
        timeout_s: how long Redis may take.
        breaker: shared with the reads of the feature state: they are the same Redis.
    """

    def __init__(
        self,
        connections: RedisConnections,
        deployed: str,
        local: LocalRecords,
        *,
        window_s: float,
        timeout_s: float,
        breaker: CircuitBreaker,
    ) -> None:
        self._connections = connections
        self._prefix = f"headrace:{{{deployed}}}:answer:"
        self._local = local
        self._window_ms = round(window_s * 1000)
        self._timeout_s = timeout_s
        self._breaker = breaker

    def lookup_command(self, event_ids: Sequence[str]) -> tuple[str, ...]:
        """What reads the records of ids; rides along with the read of the feature state."""
        return ("MGET", *(self._prefix + event_id for event_id in event_ids))

    def local(self, event_ids: Sequence[str]) -> list[bytes | None]:
        """The records that this process knows by itself."""
        return [self._local.get(event_id) for event_id in event_ids]

    async def claim(self, event_ids: Sequence[str], records: Sequence[bytes]) -> tuple[list[bytes | None], bool]:
        """Set records where there are none.

        Args:
            event_ids: n ids.
            records: what is to be the first answer of each.

        Returns:
            For each id the record that was there before, None where it is set now; and whether only this process
            knows, because Redis is away.
        """
        if self._breaker.allows():
            try:
                async with asyncio.timeout(self._timeout_s):
                    found = await self.claim_shared(event_ids, records)
            except StateUnreadableError:
                self._breaker.failed()
            except TimeoutError:
                self._breaker.failed()
            else:
                self._breaker.succeeded()
                for event_id, record, before in zip(event_ids, records, found, strict=True):
                    if before is None:
                        self._local.put(event_id, record)
                return found, False
        return [self._local.claim(one, record) for one, record in zip(event_ids, records, strict=True)], True

    async def claim_shared(self, event_ids: Sequence[str], records: Sequence[bytes]) -> list[bytes | None]:
        """Set records in Redis where there are none; returns what was there before.

        Raises:
            StateUnreadableError: Redis does not answer.
        """
        try:
            # Each by itself in one step; together in one round trip.
            found: list[bytes | None] = await self._connections.execute(
                *[
                    ("SET", self._prefix + event_id, record, "PX", self._window_ms, "NX", "GET")
                    for event_id, record in zip(event_ids, records, strict=True)
                ]
            )
        except REDIS_AWAY as error:
            raise StateUnreadableError(f"answers cannot be recorded: {error}") from error
        return found
