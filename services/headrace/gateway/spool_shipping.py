"""Ships the spool to Kafka, each answer exactly once.

A transaction carries a run of answers, their events, and the sequence number behind the last one as the committed
offset of a group that nobody is a member of. So the position moves with the answers or not at all, and a process that
starts reads how far its predecessor came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import OffsetAndMetadata

from headrace.gateway.metrics import SHIPPED, SHIPPING_FAILURES, SPOOL_BYTES
from headrace.gateway.spool import Spool, SpoolRun
from headrace.platform import kafka
from headrace.platform.health import Component
from headrace.platform.kafka import KafkaAdmin, KafkaRefused, KafkaUnavailable, TopicPartition
from headrace.platform.logging import get_logger
from headrace.platform.record_batches import send_keyed
from headrace.platform.topics import Topics

RETRY_S = 0.5
MOST_RECORDS = 2000
MOST_REFUSALS = 5


class SpoolShipping:
    """Ships the spool of one gateway process.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        instance: name of this process.
        gather_s: how long an answer may wait for others, in seconds.
        component: not ready while the spool is full.
    """

    def __init__(self, bootstrap: str, topics: Topics, instance: str, gather_s: float, component: Component) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._transactional_id = topics.transactional_id("gateway-spool", instance)
        self._group = topics.group(f"gateway-spool-{instance}")
        self._position = TopicPartition(topics.predictions, 0)
        self._gather_s = gather_s
        self._component = component
        self._failures = 0
        self._changed = asyncio.Event()
        self._emptied = asyncio.Event()
        self._hurry = asyncio.Event()
        self._spool: Spool | None = None
        self._log = get_logger("spool_shipping")

    def changed(self) -> None:
        """Something was appended, or became ready to ship."""
        self._changed.set()
        if self._spool is not None:
            self._note(self._spool)

    async def position(self) -> int:
        """How far Kafka has the spool: the first sequence number that it has not.

        Whatever an earlier process of this name left open is ended first.

        Raises:
            KafkaUnavailable: Kafka does not answer in time.
        """
        async with kafka.transactional_producer(self._bootstrap, self._transactional_id):
            return await self._committed()

    async def run(self, spool: Spool) -> None:
        """Ship until cancelled. While Kafka is away the spool fills; then it goes on where Kafka stands.

        Raises:
            ProducerFenced: another process has this instance's name.
            KafkaFault: Kafka refuses what is asked, again and again.
        """
        self._spool = spool
        while True:
            try:
                async with kafka.transactional_producer(self._bootstrap, self._transactional_id) as producer:
                    # After a transaction whose end is not known, this says how it ended.
                    self._forget(spool, await self._committed())
                    while True:
                        await self._ship(producer, spool)
            except (KafkaUnavailable, KafkaRefused) as error:
                # A broker that comes back may refuse what an earlier producer began; a new one is another matter.
                self._failures += 1
                if isinstance(error, KafkaRefused) and self._failures > MOST_REFUSALS:
                    raise
                SHIPPING_FAILURES.inc()
                self._note(spool)
                self._log.warning("answers wait in the spool", bytes=spool.waiting_bytes, reason=str(error))
                await asyncio.sleep(RETRY_S)

    async def flush(self, spool: Spool) -> None:
        """Wait until Kafka has everything; `run` must be running."""
        self._hurry.set()
        while not spool.is_empty:
            self._emptied.clear()
            self._changed.set()
            await self._emptied.wait()

    async def _ship(self, producer: Any, spool: Spool) -> None:
        runs = spool.ready(MOST_RECORDS)
        if not runs:
            self._changed.clear()
            self._note(spool)
            await self._changed.wait()
            await self._gather()
            return
        predictions = [(run.keys[row], run.predictions[row]) for run in runs for row in _shipped_rows(run)]
        events = [
            (run.event_keys[row], run.events[row])
            for run in runs
            if run.events
            for row in _shipped_rows(run)
            if run.events[row]
        ]
        async with kafka.transaction(producer):
            sent = await _send(producer, self._topics.predictions, predictions)
            sent += await _send(producer, self._topics.events, events)
            await asyncio.gather(*sent)
            behind = runs[-1].behind
            await producer.send_offsets_to_transaction({self._position: OffsetAndMetadata(behind, "")}, self._group)
        self._failures = 0
        SHIPPED.inc(len(predictions) + len(events))
        self._forget(spool, behind)
        # A transaction costs Kafka much the same however few records it has.
        if len(predictions) < MOST_RECORDS:
            await self._gather()

    async def _gather(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._gather_s):
                await self._hurry.wait()

    async def _committed(self) -> int:
        async with KafkaAdmin(self._bootstrap) as admin:
            committed = await admin.committed(self._group)
        offset, _ = committed.get(self._position, (0, ""))
        return max(0, offset)

    def _forget(self, spool: Spool, position: int) -> None:
        spool.shipped(position)
        self._note(spool)
        if spool.is_empty:
            self._emptied.set()

    def _note(self, spool: Spool) -> None:
        SPOOL_BYTES.set(spool.waiting_bytes)
        if spool.is_full:
            self._component.not_ready(f"the spool is full: {spool.waiting_bytes} bytes wait for Kafka")
        else:
            self._component.ready()


def _shipped_rows(run: SpoolRun) -> Iterable[int]:
    ship = run.ship or ()
    return range(len(ship)) if all(ship) else [row for row, yes in enumerate(ship) if yes]


async def _send(producer: Any, topic: str, records: Sequence[tuple[bytes, bytes]]) -> list[asyncio.Future[object]]:
    return await send_keyed(producer, topic, [key for key, _ in records], [value for _, value in records])
