"""Payments and labels as their producers would publish them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiokafka import AIOKafkaProducer

from headrace.demo.sources import Payments
from headrace.pipeline import DAY, Pipeline
from headrace.platform.event_codec import CheckedEvent, pack_event
from headrace.platform.topics import Topics
from headrace.v1.event_pb2 import Label

LABEL_DELAY = 7 * DAY
"""A charge-back comes a week after its payment."""
ACKNOWLEDGED_WITHIN_S = 120.0


class Publisher:
    """Publishes rows of a source, each once."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics, pipeline: Pipeline, payments: Payments) -> None:
        self._producer = producer
        self._topics = topics
        self._pipeline = pipeline
        self._payments = payments

    async def events(self, rows: Iterable[int]) -> None:
        """Publish payments to `events`, keyed by customer, and wait until they are stored."""
        payments = self._payments
        sent = []
        for row in rows:
            event = CheckedEvent(
                payments.transaction_id[row],
                int(payments.event_time_us[row]),
                [payments.customer_id[row], payments.terminal_id[row]],
                [float(payments.amount_cents[row])],
                answered=False,
            )
            value = pack_event(self._pipeline, event).SerializeToString()
            key = payments.customer_id[row].encode()
            sent.append(await self._producer.send(self._topics.events, value, key=key))
        await self._stored(sent)

    async def labels(self, rows: Iterable[int]) -> None:
        """Publish the labels of payments, with the time at which they become known, and wait until they are stored."""
        payments = self._payments
        sent = []
        for row in rows:
            label = Label(
                event_id=payments.transaction_id[row],
                value=float(payments.fraud[row]),
                label_time_us=int(payments.event_time_us[row]) + LABEL_DELAY,
            )
            key = payments.transaction_id[row].encode()
            sent.append(await self._producer.send(self._topics.labels, label.SerializeToString(), key=key))
        await self._stored(sent)

    @staticmethod
    async def _stored(sent: list[asyncio.Future[object]]) -> None:
        async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
            await asyncio.gather(*sent)
