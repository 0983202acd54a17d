"""Requests of the simulator's customers and terminals: each event a new one, so that none is answered from memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message

from headrace.pipeline import Pipeline
from headrace.platform.event_codec import CheckedEvent, pack_event
from headrace.v1 import prediction_service_pb2
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import Column, PredictBatchRequest, PredictOptions, PredictRequest
from loadtests.features.payments import Records

STEP_US = 1000
"""Time between two events: a long run stays within the windows of what is in the state."""


class Requests:
    """Makes requests. Their events come after those in the state, a millisecond apart.

    Args:
        pipeline: the fraud pipeline.
        made: the payments in the state; customers, terminals and amounts are theirs.
        deployed: name of the deployed pipeline.
    """

    def __init__(self, pipeline: Pipeline, made: Records, deployed: str) -> None:
        self._pipeline = pipeline
        self._made = made
        self._deployed = deployed
        self._next = 0
        self._begin_us = int(made.times_us[-1]) + 1_000_000

    def events(self, count: int) -> list[CheckedEvent]:
        """The next events."""
        first, self._next = self._next, self._next + count
        rows = len(self._made)
        found = []
        for number in range(first, first + count):
            like = self._made.checked(number % rows)
            found.append(
                CheckedEvent(f"r{number}", self._begin_us + number * STEP_US, like.texts, like.numbers, answered=False)
            )
        return found

    def packed(self, count: int, options: PredictOptions | None = None) -> list[PredictRequest]:
        """Calls with the fields packed in the order of the schema."""
        return [self._request(pack_event(self._pipeline, one), options) for one in self.events(count)]

    def named(self, count: int, options: PredictOptions | None = None) -> list[PredictRequest]:
        """Calls with the fields by name."""
        return [self._request(self._by_name(one), options) for one in self.events(count)]

    def batches(self, count: int, rows: int) -> list[PredictBatchRequest]:
        """Calls with so many rows each, as columns."""
        found = []
        for _ in range(count):
            events = self.events(rows)
            schema = self._pipeline.event
            texts = [
                Column(name=field.name, texts=[one.texts[at] for one in events])
                for at, field in enumerate(schema.texts)
            ]
            numbers = [
                Column(name=field.name, numbers=[one.numbers[at] for one in events])
                for at, field in enumerate(schema.numbers)
            ]
            found.append(
                PredictBatchRequest(
                    pipeline=self._deployed,
                    event_ids=[one.event_id for one in events],
                    event_times_us=[one.time_us for one in events],
                    columns=[*texts, *numbers],
                )
            )
        return found

    def _request(self, event: Event, options: PredictOptions | None) -> PredictRequest:
        return PredictRequest(pipeline=self._deployed, event=event, options=options)

    def _by_name(self, one: CheckedEvent) -> Event:
        event = Event(event_id=one.event_id, event_time_us=one.time_us)
        schema = self._pipeline.event
        event.fields.update({field.name: one.texts[at] for at, field in enumerate(schema.texts)})
        event.fields.update({field.name: one.numbers[at] for at, field in enumerate(schema.numbers)})
        return event


Make = Callable[[int], Sequence[Message]]
"""Makes so many requests."""


def serialized(messages: Sequence[Message]) -> list[bytes]:
    """Messages as bytes."""
    return [one.SerializeToString() for one in messages]


def write_protoset(path: Path) -> None:
    """Write the contract of the service as a descriptor set, with all that it imports."""
    found = FileDescriptorSet()
    seen: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for one in file.dependencies:
            add(one)
        file.CopyToProto(found.file.add())

    add(prediction_service_pb2.DESCRIPTOR)
    path.write_bytes(found.SerializeToString())
