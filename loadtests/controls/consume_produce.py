"""Bare aiokafka: reads records and writes as many of a prediction's size, with the offsets, in one transaction a batch.

`python -m loadtests.controls.consume_produce BOOTSTRAP SOURCE TARGET GROUP BATCH VALUE_BYTES`: until SIGTERM. The
least that a scorer between two topics has to do; it leaves out decoding, the model, encoding the answers and repeats.
Reading and committing overlap, as in the gateway: while one transaction commits the next batch is read.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import uvloop

from headrace.platform import kafka

IDLE_MS = 200


async def main(bootstrap: str, source: str, target: str, group: str, batch: int, value: bytes) -> None:
    """Copy until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with (
        kafka.transactional_producer(bootstrap, f"{group}-0") as producer,
        kafka.consumer(bootstrap, topics=[source], group=group, fetch_max_wait_ms=20) as consumer,
    ):
        committing: asyncio.Task[None] | None = None
        while not stopped.is_set():
            found: Mapping[Any, Sequence[Any]] = await consumer.getmany(timeout_ms=IDLE_MS, max_records=batch)
            if committing is not None:
                await committing
                committing = None
            if found:
                committing = asyncio.create_task(_commit(producer, found, target, group, value))
        if committing is not None:
            await committing


async def _commit(producer: Any, found: Mapping[Any, Sequence[Any]], target: str, group: str, value: bytes) -> None:
    async with producer.transaction():
        sent = [
            await producer.send(target, value, key=record.key, partition=place.partition)
            for place, records in found.items()
            for record in records
        ]
        await asyncio.gather(*sent)
        await producer.send_offsets_to_transaction(
            {place: records[-1].offset + 1 for place, records in found.items()}, group
        )


if __name__ == "__main__":
    at, read, written, member_of, records, size = sys.argv[1:7]
    uvloop.run(main(at, read, written, member_of, int(records), bytes(int(size))))
