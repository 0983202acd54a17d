"""Bare aiokafka: reads predictions and labels, writes a record of an outcome's size for each label, in transactions.

`python -m loadtests.controls.copy_labels BOOTSTRAP PREDICTIONS LABELS TARGET GROUP BATCH VALUE_BYTES`: until SIGTERM.
The least that a join between these topics has to do, as the join does it: as many records of each partition at a time,
packed into batches by the caller, with the offsets in the same transaction. It leaves out decoding, joining, a store.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import uvloop

from headrace.platform import kafka
from headrace.platform.kafka import TopicPartition

IDLE_MS = 100


async def main(
    bootstrap: str, predictions: str, labels: str, target: str, group: str, batch: int, value: bytes
) -> None:
    """Copy until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    partitions = sorted(await kafka.end_offsets(bootstrap, labels))
    async with asyncio.TaskGroup() as tasks:
        for number in partitions:
            sides = [TopicPartition(predictions, number), TopicPartition(labels, number)]
            tasks.create_task(_copy(bootstrap, sides, target, group, batch, value, stopped), name=f"partition {number}")


async def _copy(
    bootstrap: str,
    sides: Sequence[TopicPartition],
    target: str,
    group: str,
    batch: int,
    value: bytes,
    stopped: asyncio.Event,
) -> None:
    async with AsyncExitStack() as opened:
        producer = await opened.enter_async_context(
            kafka.transactional_producer(bootstrap, f"{group}-{sides[0].partition}")
        )
        reader = await opened.enter_async_context(
            kafka.consumer(bootstrap, partitions=sides, offset_reset="earliest", fetch_max_wait_ms=50)
        )
        while not stopped.is_set():
            found: dict[TopicPartition, Sequence[Any]] = {}
            for side in sides:
                found |= await reader.getmany(side, timeout_ms=0, max_records=batch)
            if not found:
                found = await reader.getmany(timeout_ms=IDLE_MS, max_records=batch)
            if found:
                await _commit(producer, found, sides[1], target, group, value)


async def _commit(
    producer: Any,
    found: dict[TopicPartition, Sequence[Any]],
    labels: TopicPartition,
    target: str,
    group: str,
    value: bytes,
) -> None:
    async with producer.transaction():
        sent, packed = [], producer.create_batch()
        for record in found.get(labels, ()):
            if packed.append(key=record.key, value=value, timestamp=None) is None:
                sent.append(await producer.send_batch(packed, target, partition=labels.partition))
                packed = producer.create_batch()
                packed.append(key=record.key, value=value, timestamp=None)
        if packed.record_count():
            sent.append(await producer.send_batch(packed, target, partition=labels.partition))
        await asyncio.gather(*sent)
        await producer.send_offsets_to_transaction(
            {place: records[-1].offset + 1 for place, records in found.items()}, group
        )


if __name__ == "__main__":
    at, read, labelled, written, member_of, records, size = sys.argv[1:8]
    uvloop.run(main(at, read, labelled, written, member_of, int(records), bytes(int(size))))
