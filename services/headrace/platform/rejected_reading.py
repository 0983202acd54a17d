"""Reading `rejected`: what services set aside, and what of it has been replayed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import KafkaError
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin, TopicPartition
from headrace.platform.rejected_records import REPLAYED, position_text
from headrace.platform.topics import Topics
from headrace.v1.event_pb2 import Event, Label, Rejected
from headrace.v1.prediction_pb2 import Outcome, Prediction
from headrace.v1.vector_pb2 import FeatureVector

READ_WAIT_MS = 200
STALL_TIMEOUT_S = 20.0
MOST_RECORDS = 500


@dataclass(frozen=True, slots=True)
class SetAside:
    """A record of `rejected`.

    Attributes:
        partition: where it lies.
        offset: where it lies.
        content: what it says.
        event_id: of the record that was set aside; empty where it cannot be read.
    """

    partition: int
    offset: int
    content: Rejected
    event_id: str

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset."""
        return self.partition, self.offset


@dataclass(frozen=True)
class Selection:
    """Which records are meant; all that are not restricted.

    Attributes:
        reason: code of the reason; empty for any.
        service: name of the service; empty for any.
        since_us: set aside at this time or later, in microseconds since 1970.
        sources: where they came from, as topic/partition/offset; none for anywhere.
    """

    reason: str = ""
    service: str = ""
    since_us: int = 0
    sources: Collection[str] = ()

    def includes(self, rejected: Rejected) -> bool:
        """Whether a record is meant."""
        return (
            (not self.reason or rejected.reason == self.reason)
            and (not self.service or rejected.service == self.service)
            and rejected.rejected_time_us >= self.since_us
            and (not self.sources or position_text(rejected.source) in self.sources)
        )


async def read(bootstrap: str, topics: Topics, places: Collection[tuple[int, int]] = ()) -> AsyncGenerator[SetAside]:
    """Everything that `rejected` holds now, in offset order by partition. What is no `Rejected` is passed over.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        places: partitions and offsets, where only those are wanted.

    Raises:
        TopicMissing: there is no such topic.
        KafkaUnavailable: Kafka does not answer in time.
    """
    async with KafkaAdmin(bootstrap) as admin:
        begins = await admin.begin_offsets([topics.rejected])
        ends = await admin.end_offsets([topics.rejected])
    for at, end in ends.items():
        wanted = {offset for partition, offset in places if partition == at.partition}
        if places and not wanted:
            continue
        begin = max(min(wanted, default=0), begins[at])
        async with aclosing(_records(bootstrap, at, begin, min(end, max(wanted, default=end) + 1))) as records:
            async for record in records:
                try:
                    content = Rejected.FromString(record.value or b"")
                except DecodeError:
                    continue
                if not wanted or record.offset in wanted:
                    yield SetAside(record.partition, record.offset, content, event_id_of(content, topics))


async def select(
    bootstrap: str, topics: Topics, selection: Selection, keep: Callable[[list[SetAside]], None] | None = None
) -> tuple[list[SetAside], set[tuple[int, int]]]:
    """Records that are meant, and the places in `rejected` of all that have been replayed.

    A service that was killed may set a record aside a second time: the first counts.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        selection: which records are meant.
        keep: called with what was found so far whenever that grew, to forget what is not needed.

    Raises:
        TopicMissing: there is no such topic.
        KafkaUnavailable: Kafka does not answer in time.
    """
    found: list[SetAside] = []
    replayed: set[tuple[int, int]] = set()
    seen: set[tuple[str, int, int]] = set()
    async with aclosing(read(bootstrap, topics)) as records:
        async for record in records:
            if record.content.reason == REPLAYED:
                replayed.add((record.content.source.partition, record.content.source.offset))
                continue
            source = record.content.source
            place = (source.topic, source.partition, source.offset)
            if place not in seen and selection.includes(record.content):
                found.append(record)
                if keep is not None:
                    keep(found)
            seen.add(place)
    return found, replayed


def event_id_of(rejected: Rejected, topics: Topics) -> str:
    """The event id of a record that was set aside; empty where it cannot be read."""
    message: Message | None = {
        topics.events: Event(),
        topics.labels: Label(),
        topics.predictions: Prediction(),
        topics.vectors: FeatureVector(),
        topics.outcomes: Outcome(),
    }.get(rejected.source.topic)
    if message is None:
        return ""
    try:
        if rejected.json:
            json_format.Parse(rejected.value, message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(rejected.value)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError):
        return ""
    event_id: str = message.prediction.event_id if isinstance(message, Outcome) else message.event_id  # type: ignore[attr-defined]
    return event_id


async def _records(bootstrap: str, at: TopicPartition, begin: int, end: int) -> AsyncGenerator[Any]:
    if begin >= end:
        return
    async with kafka.consumer(bootstrap, partitions=[at]) as consumer:
        consumer.seek(at, begin)
        position = begin
        while position < end:
            records = await _next(consumer, at, position)
            for record in records:
                if record.offset >= end:
                    return
                yield record
            position = await consumer.position(at)


async def _next(consumer: Any, at: TopicPartition, position: int) -> Sequence[Any]:
    """Records behind a position; none where only markers of transactions were passed."""
    try:
        async with asyncio.timeout(STALL_TIMEOUT_S):
            while True:
                found = await consumer.getmany(timeout_ms=READ_WAIT_MS, max_records=MOST_RECORDS)
                records: Sequence[Any] = found.get(at, ())
                if records or await consumer.position(at) > position:
                    return records
    except (KafkaError, TimeoutError) as error:
        raise kafka.translate(error, f"{at.topic}/{at.partition} cannot be read on from {position}") from error
