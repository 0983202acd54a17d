"""What the stream processor publishes: vectors, and records that were set aside."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.features.metrics import EMITTED_VECTORS, REJECTED_EVENTS
from headrace.platform.kafka import translate
from headrace.platform.record_batches import send_run
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
                sent += await send_run(self._producer, self._topics.vectors, one.partition, one.keys, one.values)
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
