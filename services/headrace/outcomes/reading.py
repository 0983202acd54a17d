"""Reading the two topics of one partition."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from headrace.outcomes.decoding import Record
from headrace.outcomes.errors import RecordsLostError
from headrace.outcomes.progress import Positions
from headrace.platform import kafka
from headrace.platform.topics import Topics

OFFSETS_TIMEOUT_MS = 30_000


class Records(NamedTuple):
    """Records of one partition of both topics, each in offset order."""

    predictions: Sequence[Record]
    labels: Sequence[Record]


class PartitionReader:
    """Reads committed predictions and labels of one partition. Made by `partition_reader`."""

    def __init__(self, consumer: Any, topics: Topics, partition: int) -> None:
        self._consumer = consumer
        self._predictions = kafka.TopicPartition(topics.predictions, partition)
        self._labels = kafka.TopicPartition(topics.labels, partition)

    async def first(self) -> Positions:
        """The first offsets that the topics still have."""
        return await self._offsets(self._consumer.beginning_offsets)

    async def ends(self) -> Positions:
        """The offsets after the last committed records."""
        return await self._offsets(self._consumer.end_offsets)

    def seek(self, positions: Positions) -> None:
        """Read from these offsets on."""
        self._consumer.seek(self._predictions, positions.predictions)
        self._consumer.seek(self._labels, positions.labels)

    async def positions(self) -> Positions:
        """The next offsets: behind the last records given, and behind the transaction markers that follow them."""
        return Positions(await self._consumer.position(self._predictions), await self._consumer.position(self._labels))

    async def poll(self, wait_ms: int, most: int) -> Records:
        """What has come.

        Args:
            wait_ms: longest wait while nothing has come, in milliseconds.
            most: most records of each topic.

        Raises:
            RecordsLostError: what comes next was deleted.
            KafkaFault: the broker refuses to be read.
        """
        try:
            # Both sides have their share: the client gives all it has of one partition before it turns to the next.
            found = await self._consumer.getmany(self._labels, timeout_ms=0, max_records=most)
            found |= await self._consumer.getmany(self._predictions, timeout_ms=0, max_records=most)
            if not found:
                found = await self._consumer.getmany(timeout_ms=wait_ms, max_records=most)
        except OffsetOutOfRangeError as error:
            raise RecordsLostError(
                f"records of {self._predictions.topic} or {self._labels.topic} that come next are not there any more "
                f"({error}): keep the topics for longer than the join is ever down"
            ) from error
        except KafkaError as error:
            raise kafka.translate(error, f"{self._predictions.topic} cannot be read") from error
        return Records(found.get(self._predictions, ()), found.get(self._labels, ()))

    async def poll_below(self, ends: Positions, wait_ms: int, most: int) -> Records:
        """As `poll`, but records below these offsets alone; a side that is there is not read on.

        Args:
            ends: exclusive.
            wait_ms: longest wait, in milliseconds.
            most: most records of each topic.
        """
        at = await self.positions()
        sides = (self._predictions, at.predictions, ends.predictions), (self._labels, at.labels, ends.labels)
        reached = [side for side, position, end in sides if position >= end]
        self._consumer.pause(*reached)
        try:
            found = await self.poll(wait_ms, most)
        finally:
            self._consumer.resume(*reached)
        return Records(
            [record for record in found.predictions if record.offset < ends.predictions],
            [record for record in found.labels if record.offset < ends.labels],
        )

    def lag(self, at: Positions) -> Positions | None:
        """How many offsets are still to be read, as of the last fetch; None before it."""
        ends = [self._consumer.last_stable_offset(one) for one in (self._predictions, self._labels)]
        if None in ends:
            return None
        return Positions(max(0, ends[0] - at.predictions), max(0, ends[1] - at.labels))

    async def _offsets(self, ask: Any) -> Positions:
        try:
            found = await ask([self._predictions, self._labels])
        except KafkaError as error:
            raise kafka.translate(error, f"offsets of {self._predictions.topic} are not known") from error
        return Positions(found[self._predictions], found[self._labels])


@asynccontextmanager
async def partition_reader(
    bootstrap: str, topics: Topics, partition: int, *, fetch_wait_ms: int
) -> AsyncIterator[PartitionReader]:
    """Read one partition of both topics, which is not yet anywhere: seek first.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        partition: of both.
        fetch_wait_ms: how long the broker may wait for records, in milliseconds.

    Raises:
        KafkaUnavailable: no broker answers in time.
    """
    partitions = [kafka.TopicPartition(topic, partition) for topic in (topics.predictions, topics.labels)]
    async with kafka.consumer(
        bootstrap,
        partitions=partitions,
        offset_reset="none",
        fetch_max_wait_ms=fetch_wait_ms,
        request_timeout_ms=OFFSETS_TIMEOUT_MS,
    ) as consumer:
        yield PartitionReader(consumer, topics, partition)
