"""Reading the retained records of two topics from the beginning, and knowing which partitions are active."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from headrace.platform.kafka import TopicPartition


class Reading:
    """Follows how far each partition was read.

    Args:
        consumer: a started consumer of exactly `partitions`.
        partitions: what it reads.
        idle_after_s: seconds without a record after which a partition that is read to its end is not active.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        consumer: Any,
        partitions: Collection[TopicPartition],
        *,
        idle_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._idle_after_s = idle_after_s
        self._clock = clock
        now = clock()
        self._last_record = dict.fromkeys(partitions, now)
        self._lag: dict[TopicPartition, int | None] = dict.fromkeys(partitions)

    async def poll(self, records: int, timeout_s: float) -> Mapping[TopicPartition, Sequence[Any]]:
        """The next records of any partition: at most `records`, none after `timeout_s` seconds without one."""
        found: Mapping[TopicPartition, Sequence[Any]] = await self._consumer.getmany(
            timeout_ms=int(timeout_s * 1000), max_records=records
        )
        now = self._clock()
        for partition in found:
            self._last_record[partition] = now
        for partition in self._lag:
            end = self._consumer.last_stable_offset(partition)
            if end is not None:
                self._lag[partition] = max(0, end - await self._consumer.position(partition))
        return found

    def lag(self, topic: str) -> int | None:
        """Records, and marks of transactions, that are not read yet; None while that is not known."""
        lags = [lag for partition, lag in self._lag.items() if partition.topic == topic]
        return None if None in lags else sum(lag for lag in lags if lag is not None)

    def active(self, topic: str) -> list[int]:
        """Partitions with something left to read, or not known to be read to the end, or lately with a record."""
        silent_since = self._clock() - self._idle_after_s
        return [
            partition.partition
            for partition, lag in self._lag.items()
            if partition.topic == topic and (lag is None or lag > 0 or self._last_record[partition] > silent_since)
        ]
