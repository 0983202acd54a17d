"""Producers of events and outcomes that go on through outages, and stay a little ahead of the workers."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import numpy as np
from aiokafka import AIOKafkaProducer

from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin, KafkaFault
from headrace.v1.prediction_pb2 import Outcome
from tests.chaos.feature_traffic import PaymentTraffic
from tests.integration.features.deployment import Aborted, Deployment

LAG = 3_000
"""Events that wait for the workers: enough that a fault finds them at work."""
BURST = 500
SEND_S = 30.0
CAUGHT_UP_S = 180.0


class Producers:
    """Produce the seeded traffic until they are asked to end."""

    def __init__(self, deployment: Deployment, seed: int) -> None:
        self._deployment = deployment
        self._traffic = PaymentTraffic(deployment.plan.pipeline, seed)
        self._random = np.random.default_rng(seed)
        self._ending = False

    async def events(self) -> None:
        """Publish payments. What of a burst is stored when the broker fails in it is all that comes of it."""
        while not self._ending:
            with suppress(KafkaFault, TimeoutError):
                async with kafka.producer(self._deployment.bootstrap) as producer:
                    while not self._ending:
                        if await self._lag() > LAG:
                            await asyncio.sleep(0.05)
                        else:
                            await self._publish(producer)

    async def outcomes(self) -> None:
        """Publish labels as the join does, in transactions; those of an aborted one are never sent again.

        Nor are those of a transaction of which it is not known whether it was committed: they would be doubled.
        """
        name = f"{self._deployment.topics.deployed}.chaos"
        while not self._ending:
            with suppress(KafkaFault, TimeoutError):
                async with kafka.transactional_producer(self._deployment.bootstrap, name) as producer:
                    while not self._ending:
                        batch = self._traffic.outcomes(int(self._random.integers(1, 30)))
                        with suppress(Aborted):
                            async with kafka.transaction(producer):
                                await self._send(producer, batch)
                                if self._random.random() < 0.25:
                                    raise Aborted
                        await asyncio.sleep(0.02)

    async def end(self) -> None:
        """End, and wait until all of it is merged, published and committed."""
        self._ending = True
        async with asyncio.timeout(CAUGHT_UP_S):
            while not await self._deployment.caught_up():  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(0.2)

    async def _publish(self, producer: AIOKafkaProducer) -> None:
        topic = self._deployment.topics.events
        async with asyncio.timeout(SEND_S):
            sent = [
                await producer.send(topic, one.value, key=one.key, partition=one.partition)
                for one in self._traffic.events(BURST)
            ]
            await asyncio.gather(*sent)

    async def _send(self, producer: AIOKafkaProducer, batch: list[Outcome]) -> None:
        topic = self._deployment.topics.outcomes
        sent = [
            await producer.send(topic, one.SerializeToString(), key=one.prediction.event_id.encode()) for one in batch
        ]
        await asyncio.gather(*sent)

    async def _lag(self) -> int:
        """Events that are in the topic and not committed."""
        topics = self._deployment.topics
        async with KafkaAdmin(self._deployment.bootstrap, timeout_s=10) as admin:
            committed = await admin.committed(topics.group("features"))
            ends = await admin.end_offsets([topics.events])
        return sum(end - committed.get(at, (0, ""))[0] for at, end in ends.items())
