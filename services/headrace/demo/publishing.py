"""Events and labels as their producers would publish them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiokafka import AIOKafkaProducer

from headrace.demo.history import History
from headrace.pipeline import Pipeline
from headrace.platform.event_codec import CheckedEvent, pack_event
from headrace.platform.topics import Topics
from headrace.v1.event_pb2 import Label

ACKNOWLEDGED_WITHIN_S = 120.0


class Publisher:
    """Publishes rows of a history, each once."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics, pipeline: Pipeline, history: History) -> None:
        self._producer = producer
        self._topics = topics
        self._pipeline = pipeline
        self._history = history
        schema, columns = pipeline.event, history.columns
        self._texts = [columns.texts[field.name] for field in schema.texts]
        self._numbers = [columns.numbers[field.name] for field in schema.numbers]
        self._keys = columns.texts[pipeline.key_field]

    async def events(self, rows: Iterable[int], partition: int | None = None) -> None:
        """Publish events, and wait until they are stored.

        Args:
            rows: positions in the history.
            partition: of `events`; None for that of each event's key.
        """
        sent = []
        for row in rows:
            event = CheckedEvent(
                self._history.ids[row],
                int(self._history.times[row]),
                [column[row] for column in self._texts],
                [float(column[row]) for column in self._numbers],
                answered=False,
            )
            value = pack_event(self._pipeline, event).SerializeToString()
            key = self._keys[row].encode()
            sent.append(await self._producer.send(self._topics.events, value, key=key, partition=partition))
        await self._stored(sent)

    async def labels(self, rows: Iterable[int]) -> None:
        """Publish the labels of events, with the time at which they become known, and wait until they are stored."""
        history = self._history
        sent = []
        for row in rows:
            label = Label(
                event_id=history.ids[row],
                value=float(history.positive[row]),
                label_time_us=int(history.label_time_us[row]),
            )
            key = history.ids[row].encode()
            sent.append(await self._producer.send(self._topics.labels, label.SerializeToString(), key=key))
        await self._stored(sent)

    @staticmethod
    async def _stored(sent: list[asyncio.Future[object]]) -> None:
        async with asyncio.timeout(ACKNOWLEDGED_WITHIN_S):
            await asyncio.gather(*sent)
