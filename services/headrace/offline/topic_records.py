"""The committed records of a topic, up to what was its end when reading began."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from headrace.offline.errors import TableError
from headrace.offline.progress import Progress
from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin, TopicPartition

STALL_S = 60.0
MOST_RECORDS = 20_000


class TopicRecords:
    """Reads one topic, one partition after the other.

    Attributes:
        topic: its name.
        ends: end offset of each partition when reading began.
        trimmed: partitions whose first records have left the topic, as far as they were read.
    """

    def __init__(self, bootstrap: str, topic: str, ends: dict[TopicPartition, int], progress: Progress) -> None:
        self.topic = topic
        self.ends = ends
        self.trimmed: set[int] = set()
        self._bootstrap = bootstrap
        self._progress = progress
        self._read = 0

    @property
    def partitions(self) -> list[int]:
        """Its partitions, in order."""
        return sorted(at.partition for at in self.ends)

    async def of_partition(self, partition: int) -> AsyncIterator[Sequence[Any]]:
        """The records of a partition, in offset order, in runs.

        Raises:
            TableError: nothing came for a minute though there is more.
            KafkaFault: no broker answers.
        """
        at = TopicPartition(self.topic, partition)
        end, total = self.ends[at], sum(self.ends.values())
        if not end:
            return
        async with kafka.consumer(self._bootstrap, partitions=[at], fetch_max_wait_ms=50) as consumer:
            await consumer.seek_to_beginning()
            if await consumer.position(at):
                self.trimmed.add(partition)
            loop = asyncio.get_running_loop()
            heard = loop.time()
            while (position := await consumer.position(at)) < end:
                self._progress(self._read + position, total)
                found = await consumer.getmany(timeout_ms=100, max_records=MOST_RECORDS)
                records = [record for record in found.get(at, []) if record.offset < end]
                if records:
                    heard = loop.time()
                    yield records
                elif loop.time() - heard > STALL_S:
                    raise TableError(self.topic, f"partition {partition}: nothing came for {STALL_S:g} s at {position}")
        self._read += end
        self._progress(self._read, total)


async def topic_records(bootstrap: str, topic: str, progress: Progress) -> TopicRecords:
    """A topic as it is now.

    Raises:
        TopicMissing: there is no such topic.
        KafkaUnavailable: no broker answers.
    """
    async with KafkaAdmin(bootstrap) as admin:
        return TopicRecords(bootstrap, topic, await admin.end_offsets([topic]), progress)
