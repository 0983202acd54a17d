"""What the stream processor publishes: vectors, and records that were set aside."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.features.metrics import EMITTED_VECTORS, REJECTED_EVENTS
from headrace.platform.kafka import translate
from headrace.v1.event_pb2 import Rejected
from headrace.v1.vector_pb2 import FeatureVector

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

    from headrace.platform.topics import Topics


class Publisher:
    """Publishes to `vectors` and `rejected`."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics) -> None:
        """Args:
        producer: idempotent, so that what is published arrives once and in order.
        topics: names.
        """
        self._producer = producer
        self._topics = topics

    async def publish(
        self, vectors: Sequence[tuple[bytes | None, FeatureVector]], rejected: Sequence[Rejected]
    ) -> None:
        """Publish, and wait until all of it is stored.

        Args:
            vectors: keys and vectors; each goes to the partition number of its source, in this order.
            rejected: records that were set aside.

        Raises:
            KafkaFault: not everything was stored.
        """
        try:
            sent = [
                await self._producer.send(
                    self._topics.vectors, vector.SerializeToString(), key=key, partition=vector.source.partition
                )
                for key, vector in vectors
            ]
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
        EMITTED_VECTORS.inc(len(vectors))
