"""Reads all topics of the replay as they grow, and tells when something has come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer

from headrace.demo.errors import DemoError
from headrace.demo.recording import PARTITIONS, Place, Recording
from headrace.platform import kafka
from headrace.platform.kafka import TopicPartition
from headrace.platform.topics import Topics

STALL_S = 120.0
POLL_MS = 20


class Follower:
    """Files every committed record of the replay, and wakes whoever waits for a condition."""

    def __init__(self, recording: Recording, topics: Topics, consumer: AIOKafkaConsumer) -> None:
        self.recording = recording
        self._consumer = consumer
        self._changed = asyncio.Condition()
        self._seen = 0
        self._file: dict[str, Callable[[bytes, Place], None]] = {
            topics.events: recording.file_event,
            topics.labels: recording.file_label,
            topics.predictions: recording.file_prediction,
            topics.outcomes: recording.file_outcome,
            topics.models: recording.file_model,
            topics.routes: recording.file_route,
            topics.alerts: recording.file_alert,
            topics.rejected: recording.file_rejected,
        }

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            found: dict[TopicPartition, list[Any]] = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=2000)
            for at, records in found.items():
                file = self._file[at.topic]
                for record in records:
                    if record.value is not None:
                        file(record.value, Place(at.partition, record.offset, record.timestamp * 1000))
                self._seen += len(records)
            if found:
                async with self._changed:
                    self._changed.notify_all()
                await asyncio.sleep(0)

    def _moved(self, seen: int) -> bool:
        return self._seen != seen

    async def read_to(self, ends: Mapping[TopicPartition, int]) -> None:
        """Wait until everything below these offsets is filed.

        Raises:
            DemoError: nothing came for a long time.
        """
        ours = [at for at in self._consumer.assignment() if ends.get(at, 0)]

        async def behind() -> list[TopicPartition]:
            return [at for at in ours if await self._consumer.position(at) < ends[at]]

        until = time.monotonic() + STALL_S
        while await behind():
            if time.monotonic() > until:
                raise DemoError(f"the end of the topics was not reached within {STALL_S:g} s")
            await asyncio.sleep(POLL_MS / 1000)

    async def until(self, condition: Callable[[], bool], what: Callable[[], str], stall_s: float = STALL_S) -> None:
        """Wait for a condition that new records can bring about.

        Args:
            condition: evaluated after each batch of records.
            what: says what is waited for, should it not come.
            stall_s: how long nothing at all may come, in seconds.

        Raises:
            DemoError: nothing came for that long, or an event was set aside.
        """
        while not condition():
            if refused := self.recording.refused:
                more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
                raise DemoError(f"the features service has set aside {refused[0]}{more}")
            seen = self._seen
            try:
                async with asyncio.timeout(stall_s), self._changed:
                    await self._changed.wait_for(partial(self._moved, seen))
            except TimeoutError:
                raise DemoError(
                    f"nothing came for {stall_s:g} s while waiting for {what()}; the logs of the services tell why"
                ) from None


@asynccontextmanager
async def follow(recording: Recording, topics: Topics, bootstrap: str) -> AsyncIterator[Follower]:
    """Follow the topics while the block runs."""
    names: Sequence[tuple[str, int]] = [
        *((name, PARTITIONS) for name in (topics.events, topics.labels, topics.predictions, topics.outcomes)),
        *((name, 1) for name in (topics.models, topics.routes, topics.alerts, topics.rejected)),
    ]
    partitions = [TopicPartition(name, number) for name, count in names for number in range(count)]
    async with kafka.consumer(bootstrap, partitions=partitions, fetch_max_wait_ms=50) as consumer:
        follower = Follower(recording, topics, consumer)
        reading = asyncio.create_task(follower.run(), name="follower")
        try:
            yield follower
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            if not reading.cancelled() and (failure := reading.exception()):
                raise failure
