"""The first answer to each event id: in Redis for all gateway processes, in this process for when Redis is away.

A record is a serialized `Prediction`. Claiming an id sets its record only where there is none, in one step, so of two
concurrent answers to one id exactly one becomes the answer, and the other caller gets that one as well.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import repeat

import redis.exceptions

from headrace.gateway.bounded_cache import CacheCounts
from headrace.gateway.circuit_breaker import CircuitBreaker
from headrace.gateway.errors import StateUnreadableError
from headrace.platform.redis_connection import RedisConnections

REDIS_AWAY = (redis.exceptions.RedisError, TimeoutError, OSError)


# A text of at most four bytes a character, a tuple, a float and a bytes object, without what they hold; and a place in
# an ordered dictionary.
RECORD_BYTES = 49 + 56 + 24 + 33 + 176


class LocalRecords:
    """The records of this process.

    Args:
        window_s: how long a record counts, in seconds.
        capacity_bytes: most bytes of all records; the oldest leaves first.
        clock: monotonic seconds.
    """

    def __init__(self, window_s: float, capacity_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s = window_s
        self._capacity_bytes = capacity_bytes
        self._clock = clock
        # In the order of their ends.
        self._records: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._size_bytes = 0
        self._counts = CacheCounts()

    @property
    def counts(self) -> CacheCounts:
        """Ids found, ids not found, records that left for others."""
        return self._counts

    @property
    def size_bytes(self) -> int:
        """Bytes of all records."""
        return self._size_bytes

    def __len__(self) -> int:
        return len(self._records)

    def lookup(self, event_ids: Sequence[str]) -> list[bytes | None]:
        """The records of n ids, None where there is none."""
        found = [self._records.get(event_id) for event_id in event_ids]
        hits = len(found) - found.count(None)
        self._counts.misses += len(found) - hits
        if not hits:
            return [None] * len(found)
        now = self._clock()
        records = [None if one is None or one[1] <= now else one[0] for one in found]
        ended = hits - (len(records) - records.count(None))
        self._counts.hits += hits - ended
        self._counts.misses += ended
        return records

    def claim(self, event_ids: Sequence[str], records: Sequence[bytes]) -> list[bytes | None]:
        """Set the records of n ids where there are none; those that were there before, set by an earlier one too."""
        before: list[bytes | None] = []
        for event_id, record in zip(event_ids, records, strict=True):
            before += self.lookup([event_id])
            if before[-1] is None:
                self.put([event_id], [record])
        return before

    def put(self, event_ids: Sequence[str], records: Sequence[bytes]) -> None:
        """Set the records of n different ids."""
        now = self._clock()
        if not self._records.keys().isdisjoint(event_ids):
            for event_id in event_ids:
                self._drop(event_id)
        self._records.update(zip(event_ids, zip(records, repeat(now + self._window_s), strict=False), strict=True))
        self._size_bytes += sum(map(len, records)) + 4 * sum(map(len, event_ids)) + RECORD_BYTES * len(records)
        while self._records:
            oldest = next(iter(self._records))
            ended = self._records[oldest][1] <= now
            if not ended and self._size_bytes <= self._capacity_bytes:
                break
            self._counts.evictions += not ended
            self._drop(oldest)

    def _drop(self, event_id: str) -> None:
        kept = self._records.pop(event_id, None)
        if kept is not None:
            self._size_bytes -= len(kept[0]) + 4 * len(event_id) + RECORD_BYTES


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
        return self._local.lookup(event_ids)

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
                new = [row for row, before in enumerate(found) if before is None]
                if len(new) == len(found):
                    self._local.put(event_ids, records)
                else:
                    self._local.put([event_ids[row] for row in new], [records[row] for row in new])
                return found, False
        return self._local.claim(event_ids, records), True

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
