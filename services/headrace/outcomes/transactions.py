"""What one partition's join writes to Kafka: each batch in one transaction with the offsets that it was made from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka.structs import OffsetAndMetadata

from headrace.outcomes import metrics
from headrace.outcomes.decoding import Misplaced
from headrace.outcomes.join import OutgoingOutcome
from headrace.outcomes.progress import Progress
from headrace.platform import kafka
from headrace.platform.topics import Topics
from headrace.v1.event_pb2 import Rejected

SERVICE = "outcomes"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What one transaction writes beside the offsets."""

    outcomes: Sequence[OutgoingOutcome] = field(default_factory=list)
    misplaced: Sequence[Misplaced] = field(default_factory=list)
    rejected: Sequence[Rejected] = field(default_factory=list)


class TransactionWriter:
    """Writes the transactions of one partition. Made by `transaction_writer`."""

    def __init__(self, producer: Any, topics: Topics, partition: int, timeout_s: float) -> None:
        self._producer = producer
        self._topics = topics
        self._partition = partition
        self._timeout_s = timeout_s

    async def commit(self, outgoing: Outgoing, progress: Progress) -> None:
        """Publish and commit, both or neither.

        Args:
            outgoing: what to publish.
            progress: its positions become the committed offsets of the group.

        Raises:
            ProducerFenced: another process has this partition now.
            KafkaUnavailable: not committed in time; whether it took effect is known only after a restart.
            KafkaRefused: Kafka refuses it.
        """
        topics, partition = self._topics, self._partition
        offsets = {
            kafka.TopicPartition(topics.predictions, partition): OffsetAndMetadata(
                progress.positions.predictions, progress.commit_metadata()
            ),
            kafka.TopicPartition(topics.labels, partition): OffsetAndMetadata(progress.positions.labels, ""),
        }
        with metrics.TRANSACTION.time():
            async with kafka.transaction(self._producer, timeout_s=self._timeout_s):
                acknowledged = await self._send(outgoing)
                await self._producer.send_offsets_to_transaction(offsets, topics.group(SERVICE))
                if acknowledged:
                    await asyncio.gather(*acknowledged)
        metrics.OUTCOMES.inc(len(outgoing.outcomes))
        for one in outgoing.misplaced:
            metrics.FORWARDED.labels(one.record.topic).inc()
        for rejected in outgoing.rejected:
            metrics.REJECTED.labels(rejected.source.topic, rejected.reason).inc()

    async def _send(self, outgoing: Outgoing) -> list[asyncio.Future[Any]]:
        producer, topics = self._producer, self._topics
        acknowledged = []
        batch = producer.create_batch()
        for key, value in outgoing.outcomes:
            if batch.append(key=key, value=value, timestamp=None) is None:
                acknowledged.append(await producer.send_batch(batch, topics.outcomes, partition=self._partition))
                batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        if batch.record_count():
            acknowledged.append(await producer.send_batch(batch, topics.outcomes, partition=self._partition))
        for one in outgoing.misplaced:
            acknowledged.append(
                await producer.send(
                    one.record.topic,
                    one.record.value,
                    key=one.event_id,
                    partition=one.partition,
                    headers=list(one.record.headers),
                )
            )
        for rejected in outgoing.rejected:
            key = rejected.key or rejected.source.topic.encode()
            acknowledged.append(await producer.send(topics.rejected, rejected.SerializeToString(), key=key))
        return acknowledged


@asynccontextmanager
async def transaction_writer(
    bootstrap: str, topics: Topics, partition: int, timeout_s: float
) -> AsyncIterator[TransactionWriter]:
    """Take over the transactions of a partition: an earlier process is fenced, what it left open is ended.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        partition: of `predictions` and `labels`.
        timeout_s: for one transaction, in seconds.

    Raises:
        KafkaUnavailable: no broker answers in time.
    """
    transactional_id = topics.transactional_id(SERVICE, partition)
    async with kafka.transactional_producer(bootstrap, transactional_id) as producer:
        yield TransactionWriter(producer, topics, partition, timeout_s)
