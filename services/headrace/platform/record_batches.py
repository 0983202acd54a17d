"""Records sent as batches of our own making: a call of the client for each record costs several times as much."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiokafka.errors import MessageSizeTooLargeError

from headrace.platform.partitioning import murmur2_partitions

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer


async def send_run(
    producer: AIOKafkaProducer, topic: str, partition: int, keys: Sequence[bytes | None], values: Sequence[bytes]
) -> list[asyncio.Future[object]]:
    """Send records to one partition, in order.

    Args:
        producer: started; in a transaction, where it is a transactional one.
        topic: name of the topic.
        partition: of the topic.
        keys: n keys.
        values: n values.

    Returns:
        What is done when the records are stored.

    Raises:
        MessageSizeTooLargeError: one of them does not fit into a batch.
        KafkaError: of the client library.
    """
    sent = []
    now_ms = time.time_ns() // 1_000_000
    batch = producer.create_batch()
    for key, value in zip(keys, values, strict=True):
        if batch.append(timestamp=now_ms, key=key, value=value) is None:  # full
            sent.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            if batch.append(timestamp=now_ms, key=key, value=value) is None:
                raise MessageSizeTooLargeError(f"a record of {len(value)} bytes does not fit into a batch")
    if batch.record_count():
        sent.append(await producer.send_batch(batch, topic, partition=partition))
    return sent


async def send_keyed(
    producer: AIOKafkaProducer, topic: str, keys: Sequence[bytes], values: Sequence[bytes]
) -> list[asyncio.Future[object]]:
    """Send records to the partitions of their keys, in order within each; see `send_run`."""
    if not keys:
        return []
    partitions = len(await producer.partitions_for(topic))
    rows: list[list[int]] = [[] for _ in range(partitions)]
    for row, partition in enumerate(murmur2_partitions(keys, partitions)):
        rows[partition].append(row)
    sent = []
    for partition, of in enumerate(rows):
        if of:
            sent += await send_run(producer, topic, partition, [keys[row] for row in of], [values[row] for row in of])
    return sent
