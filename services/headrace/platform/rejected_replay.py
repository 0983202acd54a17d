"""Bringing records back that services set aside: published again where they came from, each once.

The records and what `rejected` keeps of their replay are one transaction: either both are there or none. A second
replay of the same pipeline that runs at the same time fences the first.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin, TopicPartition
from headrace.platform.rejected_reading import Selection, SetAside, read, select
from headrace.platform.rejected_records import REPLAY_HEADER, is_whole, position_text, replay_marker
from headrace.platform.topics import Topics
from headrace.v1.event_pb2 import SourcePosition

RECORDS_PER_TRANSACTION = 100
BYTES_PER_TRANSACTION = 8 << 20
TRANSACTION_TIMEOUT_MS = 10_000
"""Readers wait behind an open transaction: one that a killed replay leaves open must end soon."""
MAX_REQUEST_BYTES = 64 << 20
SOURCE_TIMEOUT_S = 10.0
READ_WAIT_MS = 200

Headers = list[tuple[str, bytes]]


@dataclass
class Replay:
    """What a replay did, or would do.

    Attributes:
        due: records to bring back, without their values.
        before: how many had been replayed before.
        impossible: what cannot be brought back, with the reason.
        done: how many were brought back.
    """

    due: list[SetAside] = field(default_factory=list)
    before: int = 0
    impossible: list[tuple[SetAside, str]] = field(default_factory=list)
    done: int = 0


async def plan_replay(bootstrap: str, topics: Topics, selection: Selection) -> Replay:
    """What a replay would bring back.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        selection: which records are meant.

    Raises:
        TopicMissing: `rejected` is not there.
        KafkaUnavailable: Kafka does not answer in time.
    """
    # Values may be many and large, and are read again when they are due.
    found, replayed = await select(bootstrap, topics, selection, lambda found: found[-1].content.ClearField("value"))
    replay = Replay()
    for record in found:
        reason = _impossible(record, topics)
        if record.place in replayed:
            replay.before += 1
        elif reason:
            replay.impossible.append((record, reason))
        else:
            replay.due.append(record)
    return replay


async def replay(bootstrap: str, topics: Topics, selection: Selection) -> Replay:
    """Bring records back.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        selection: which records are meant.

    Raises:
        TopicMissing: `rejected` is not there.
        KafkaUnavailable: Kafka does not answer in time. What was brought back is known; the rest is still due.
        KafkaRefused: Kafka refuses a record, for example because it is too large.
        ProducerFenced: another replay has begun.
    """
    async with kafka.transactional_producer(
        bootstrap,
        topics.transactional_id("rejected-replay", 0),
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        max_request_size=MAX_REQUEST_BYTES,
        # What came in compressed may be too large for the topic otherwise.
        compression_type="gzip",
    ) as producer:
        # Only now, when no earlier replay can commit any more, is it known what has been replayed.
        plan = await plan_replay(bootstrap, topics, selection)
        if not plan.due:
            return plan
        places = {record.place for record in plan.due}
        async with (
            _source_reader(bootstrap, {record.content.source.topic for record in plan.due}) as sources,
            aclosing(read(bootstrap, topics, places)) as records,
        ):
            batch: list[_Original] = []
            async for record in records:
                original = await sources.original(record)
                if isinstance(original, str):
                    plan.impossible.append((record, original))
                    continue
                batch.append(original)
                if len(batch) == RECORDS_PER_TRANSACTION or sum(one.size for one in batch) > BYTES_PER_TRANSACTION:
                    plan.done += await _publish(producer, topics, batch)
                    batch = []
            plan.done += await _publish(producer, topics, batch)
    return plan


@dataclass(frozen=True, slots=True)
class _Original:
    set_aside: SetAside
    key: bytes | None
    value: bytes
    headers: Headers

    @property
    def size(self) -> int:
        return len(self.value)


def _impossible(record: SetAside, topics: Topics) -> str:
    """Why a record cannot be brought back; empty where it can."""
    rejected = record.content
    if rejected.source.topic == topics.outcomes:
        return "other readers of outcomes may have used it, and would count it twice"
    if rejected.source.topic not in {topics.events, topics.labels, topics.predictions, topics.vectors}:
        return f"{rejected.source.topic} is not a topic of {topics.deployed}"
    if not rejected.value_sha256:
        return "it had no value"
    return ""


async def _publish(producer: Any, topics: Topics, batch: Sequence[_Original]) -> int:
    if not batch:
        return 0
    async with kafka.transaction(producer):
        sent = []
        for one in batch:
            source = one.set_aside.content.source
            at = SourcePosition(topic=topics.rejected, partition=one.set_aside.partition, offset=one.set_aside.offset)
            headers = [*one.headers, (REPLAY_HEADER, position_text(at).encode())]
            try:
                sent.append(
                    await producer.send(
                        source.topic, one.value, key=one.key, partition=source.partition, headers=headers
                    )
                )
            except MessageSizeTooLargeError as error:
                raise kafka.translate(error, f"{position_text(source)} is not published again") from error
            marker = replay_marker(at).SerializeToString()
            sent.append(await producer.send(topics.rejected, marker, key=one.key, partition=at.partition))
        await asyncio.gather(*sent)
    return len(batch)


class _SourceReader:
    """Reads single records from where they were set aside."""

    def __init__(self, consumer: Any, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        self._consumer = consumer
        self._begins = begins
        self._ends = ends

    async def original(self, record: SetAside) -> _Original | str:
        """The record as it was, or why it cannot be had.

        Raises:
            KafkaUnavailable: Kafka does not answer in time.
        """
        rejected = record.content
        if is_whole(rejected):
            headers = [(one.name, one.value) for one in rejected.headers]
            return _Original(record, rejected.key or None, rejected.value, headers)
        source = rejected.source
        at = TopicPartition(source.topic, source.partition)
        if not self._begins.get(at, 0) <= source.offset < self._ends.get(at, 0):
            return f"only its first {len(rejected.value)} bytes are kept, and {source.topic} no longer has it"
        found = await self._read(at, source.offset)
        value = found.value or b""
        if found.offset != source.offset or hashlib.sha256(value).digest() != rejected.value_sha256:
            return f"{position_text(source)} holds another record now: {source.topic} was created anew"
        return _Original(record, found.key, value, [(name, content or b"") for name, content in found.headers])

    async def _read(self, at: TopicPartition, offset: int) -> Any:
        self._consumer.assign([at])
        self._consumer.seek(at, offset)
        try:
            async with asyncio.timeout(SOURCE_TIMEOUT_S):
                while True:
                    found = await self._consumer.getmany(timeout_ms=READ_WAIT_MS, max_records=1)
                    if found.get(at):
                        return found[at][0]
        except (KafkaError, TimeoutError) as error:
            raise kafka.translate(error, f"{at.topic}/{at.partition}/{offset} cannot be read") from error


@asynccontextmanager
async def _source_reader(bootstrap: str, topics: Collection[str]) -> AsyncIterator[_SourceReader]:
    async with KafkaAdmin(bootstrap) as admin:
        begins, ends = await admin.begin_offsets(topics), await admin.end_offsets(topics)
    async with kafka.consumer(bootstrap, partitions=list(ends)) as consumer:
        yield _SourceReader(consumer, begins, ends)
