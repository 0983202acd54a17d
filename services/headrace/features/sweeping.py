"""Idle keys leave Redis by event time: what no window will reach any more is deleted, step by step.

Logs that events come for are trimmed when they are read. A key that nothing comes for any more is found here: all names
are scanned, few at a time, and a log whose every record lies behind the trimming horizon is deleted, if it still is
what was read. A key that returns starts clean. Its deletion counts as a rewrite, so that a worker that has read the log
before notices.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import redis.exceptions

from headrace.features.metrics import SWEPT_LOGS
from headrace.features.state_writer import StateWriter
from headrace.features.trimming import plan_deletions, safe_time
from headrace.pipeline.state import LABEL_RECORD, FeaturePlan
from headrace.platform.feature_state import StateKeys
from headrace.platform.logging import get_logger

if TYPE_CHECKING:
    from redis.asyncio import Redis

STEP_KEYS = 200
IDLE_S = 1.0
EVENT_TIME_STEPS = 100
"""How often a key is looked at while its retention goes by."""


class Sweeper:
    """Sweeps the state of one pipeline. Any number may sweep at once; one is enough."""

    def __init__(
        self, client: Redis, plan: FeaturePlan, keys: StateKeys, writer: StateWriter, keys_per_s: float
    ) -> None:
        """Args:
        client: connection, bytes undecoded.
        plan: the compiled pipeline.
        keys: names.
        writer: deletes logs that nobody has changed meanwhile.
        keys_per_s: most names to look at per second.
        """
        self._client = client
        self._keys = keys
        self._writer = writer
        self._keys_per_s = keys_per_s
        self._log = get_logger("sweeping")
        self._kinds: list[tuple[bytes, np.dtype[Any], int]] = []
        """What names begin with, layout and retention, of every kind of log."""
        for entity in plan.entities:
            self._kinds.append((keys.event_log(entity.entity).encode(), entity.event_record, entity.retention))
            if entity.has_labels:
                self._kinds.append((keys.label_log(entity.entity).encode(), LABEL_RECORD, entity.retention))
        self._pause = min((retention for *_, retention in self._kinds), default=0) // EVENT_TIME_STEPS

    async def run(self, mine: Callable[[], bool]) -> None:
        """Sweep until cancelled: again whenever event time has moved on. While Redis is away it waits.

        Args:
            mine: whether this worker is the one that sweeps.
        """
        swept = 0
        while True:
            try:
                safe = await self._safe_time() if self._kinds and mine() else 0
                if safe and safe >= swept + self._pause:
                    deleted = await self._sweep(safe, mine)
                    swept = safe
                    if deleted:
                        self._log.info("swept idle keys", deleted=deleted)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
                self._log.warning("sweeping waits for Redis", reason=str(error) or type(error).__name__)
            await asyncio.sleep(IDLE_S)

    async def sweep(self) -> int:
        """Go over all names once; the number of logs that were deleted.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        safe = await self._safe_time()
        return await self._sweep(safe, lambda: True) if safe else 0

    async def _sweep(self, safe: int, mine: Callable[[], bool]) -> int:
        cursor, deleted = -1, 0
        while cursor and mine():
            began = time.monotonic()
            scanned: Any = await self._client.scan(max(cursor, 0), match=f"{self._keys.prefix}:*", count=STEP_KEYS)
            cursor, found = scanned
            for prefix, record, retention in self._kinds:
                names = [name for name in found if name.startswith(prefix)]
                if names:
                    deleted += await self._delete_expired(names, record, safe, retention)
            await asyncio.sleep(max(STEP_KEYS / self._keys_per_s - (time.monotonic() - began), 0))
        return deleted

    async def _delete_expired(self, names: Sequence[bytes], record: np.dtype[Any], safe: int, retention: int) -> int:
        """Delete those of the logs that have expired as a whole; how many."""
        horizon = safe - retention
        async with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.getrange(name, -record.itemsize, -1)
            newest = await pipe.execute()
        # Most logs end in a record that is alive, so that little is read of them.
        last = [one for name, one in zip(names, newest, strict=True) if len(one) == record.itemsize]
        of = [name for name, one in zip(names, newest, strict=True) if len(one) == record.itemsize]
        if not of:
            return 0
        expired = np.frombuffer(b"".join(last), record)["time"] <= horizon
        suspects = [of[i] for i in np.flatnonzero(expired).tolist()]
        if not suspects:
            return 0
        stored: list[Any] = await self._client.mget(suspects)
        logs = [value or b"" for value in stored]
        deletions = plan_deletions(record, logs, horizon)
        done = await self._writer.rewrite([name.decode() for name in suspects], deletions, safe)
        SWEPT_LOGS.inc(done)
        return done

    async def _safe_time(self) -> int:
        stored: Any = await self._client.hgetall(self._keys.sources)
        return safe_time({name.decode(): value.decode() for name, value in stored.items()})
