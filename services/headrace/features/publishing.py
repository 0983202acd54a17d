"""What the stream processor publishes: vectors, and records that were set aside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka.errors import MessageSizeTooLargeError

from headrace.features.metrics import EMITTED_VECTORS, REJECTED_EVENTS
from headrace.platform.kafka import translate
from headrace.v1.event_pb2 import Rejected

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

    from headrace.platform.topics import Topics


@dataclass(frozen=True)
class PartitionVectors:
    """Vectors for one partition, as bytes.

    Attributes:
        partition: of `vectors`.
        keys: their keys.
        values: encoded `FeatureVector`s.
    """

    partition: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes]


class Publisher:
    """Publishes to `vectors` and `rejected`."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics) -> None:
        """Args:
        producer: idempotent, so that what is published arrives once and in order.
        topics: names.
        """
        self._producer = producer
        self._topics = topics

    async def publish(self, vectors: Sequence[PartitionVectors], rejected: Sequence[Rejected]) -> None:
        """Publish, and wait until all of it is stored.

        Args:
            vectors: go to the partition number of their events, in this order.
            rejected: records that were set aside.

        Raises:
            KafkaFault: not everything was stored.
        """
        try:
            sent = []
            for one in vectors:
                sent += await self._send(one)
            for record in rejected:
                REJECTED_EVENTS.labels(record.reason).inc()
                sent.append(
                    await self._producer.send(
                        self._topics.rejected, record.SerializeToString(), key=record.key or None, partition=0
                    )
                )
            await asyncio.gather(*sent)
        except Exception as error:
            raise translate(error, "vectors were not published") from error
        EMITTED_VECTORS.inc(sum(len(one.values) for one in vectors))

    async def _send(self, vectors: PartitionVectors) -> list[asyncio.Future[object]]:
        """Send in batches of our own making: a call for each record costs four times as much."""
        sent = []
        now_ms = time.time_ns() // 1_000_000
        batch = self._producer.create_batch()
        for key, value in zip(vectors.keys, vectors.values, strict=True):
            if batch.append(timestamp=now_ms, key=key, value=value) is None:  # full
                sent.append(await self._producer.send_batch(batch, self._topics.vectors, partition=vectors.partition))
                batch = self._producer.create_batch()
                if batch.append(timestamp=now_ms, key=key, value=value) is None:
                    raise MessageSizeTooLargeError(f"a vector of {len(value)} bytes does not fit into a batch")
        if batch.record_count():
            sent.append(await self._producer.send_batch(batch, self._topics.vectors, partition=vectors.partition))
        return sent
