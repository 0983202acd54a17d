"""Finding single records in topics, by offset, by time and by key, without reading more than is needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiokafka.errors import KafkaError

from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin, TopicPartition
from headrace.platform.kafka_errors import TopicMissing

FIRST_WINDOW = 20_000
LARGEST_WINDOW = 500_000
MOST_RECORDS = 5_000
WAIT_MS = 200
STALL_TIMEOUT_S = 20.0


class Span(NamedTuple):
    """What a partition holds: its first offset, and the one behind its last record."""

    begin: int
    end: int


class Found(NamedTuple):
    """What a search by key found.

    Attributes:
        records: in offset order.
        searched_from: everything at or above this offset was searched.
        span: what the partition holds.
    """

    records: list[Any]
    searched_from: int
    span: Span

    @property
    def whole(self) -> bool:
        """Whether all of the partition was searched."""
        return self.searched_from <= self.span.begin


class RecordSearch:
    """Reads topics without a group; commits nothing. To be used as an async context manager.

    Args:
        bootstrap: Kafka brokers.
        timeout_s: for connecting, in seconds.
    """

    def __init__(self, bootstrap: str, timeout_s: float = 10.0) -> None:
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s
        self._opened = AsyncExitStack()
        self._readers: dict[TopicPartition, Any] = {}
        self._counts: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        self._admin = await self._opened.enter_async_context(KafkaAdmin(self._bootstrap, timeout_s=self._timeout_s))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    async def require(self, *topics: str) -> None:
        """See that topics are there.

        Raises:
            TopicMissing: names the first that is not.
        """
        self._counts |= await self._admin.partitions(topics)
        for topic in topics:
            if topic not in self._counts:
                raise TopicMissing(
                    f"topic {topic} is not there; `headrace topics create` creates the pipeline's topics"
                )

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has; see `require`."""
        if topic not in self._counts:
            await self.require(topic)
        return self._counts[topic]

    async def span(self, topic: str, partition: int) -> Span:
        """What a partition holds now, of committed records."""
        at, reader = await self._reader(topic, partition)
        try:
            async with asyncio.timeout(self._timeout_s):
                return Span((await reader.beginning_offsets([at]))[at], (await reader.end_offsets([at]))[at])
        except (KafkaError, TimeoutError) as error:
            raise kafka.translate(error, f"{topic} cannot be read") from error

    async def at(self, topic: str, partition: int, offset: int) -> Any | None:
        """The record at an offset; None when there is none any more, or none yet."""
        span = await self.span(topic, partition)
        if not span.begin <= offset < span.end:
            return None
        async for record in self._read(topic, partition, offset, offset + 1):
            return record
        return None

    async def offset_at(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset whose record is not older than a time; the end of the partition where all are older."""
        at, reader = await self._reader(topic, partition)
        try:
            async with asyncio.timeout(self._timeout_s):
                found = (await reader.offsets_for_times({at: max(time_ms, 0)}))[at]
        except (KafkaError, TimeoutError) as error:
            raise kafka.translate(error, f"{topic} cannot be read") from error
        return found.offset if found is not None else (await self.span(topic, partition)).end

    async def forward(
        self, topic: str, partition: int, *, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[Any]:
        """The records from an offset to the present end of the partition, or to an offset before it.

        Raises:
            KafkaUnavailable: nothing comes for a while.
        """
        span = await self.span(topic, partition)
        last = span.end if end is None else min(end, span.end)
        async for record in self._read(topic, partition, max(start, span.begin), last):
            yield record

    async def backward(self, topic: str, partition: int, key: bytes, enough: Callable[[list[Any]], bool]) -> Found:
        """The records of a key, from the end of a partition back, in windows that grow.

        Args:
            topic: full name.
            partition: that the key belongs to.
            key: of the records.
            enough: asked after each window, with what was found; the search ends where it says so.

        Raises:
            KafkaUnavailable: nothing comes for a while.
        """
        span = await self.span(topic, partition)
        found: list[Any] = []
        end, window = span.end, FIRST_WINDOW
        while end > span.begin:
            start = max(span.begin, end - window)
            here: list[Any] = []
            async for records in self._batches(topic, partition, start, end):
                here += [record for record in records if record.key == key]
            found = here + found
            end, window = start, min(window * 2, LARGEST_WINDOW)
            if enough(found):
                break
        return Found(found, end, span)

    async def _read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[Any]:
        async for records in self._batches(topic, partition, start, end):
            for record in records:
                yield record

    async def _batches(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[list[Any]]:
        at, reader = await self._reader(topic, partition)
        reader.seek(at, start)
        position = start
        while position < end:
            try:
                async with asyncio.timeout(STALL_TIMEOUT_S):
                    records = (await reader.getmany(at, timeout_ms=WAIT_MS, max_records=MOST_RECORDS)).get(at, ())
                    while not records and await reader.position(at) <= position:
                        records = (await reader.getmany(at, timeout_ms=WAIT_MS, max_records=MOST_RECORDS)).get(at, ())
            except (KafkaError, TimeoutError) as error:
                raise kafka.translate(error, f"{topic}/{partition} cannot be read on from {position}") from error
            if records and records[-1].offset >= end:
                yield [record for record in records if record.offset < end]
                return
            yield list(records)
            position = await reader.position(at)

    async def _reader(self, topic: str, partition: int) -> tuple[TopicPartition, Any]:
        """A reader of a partition, kept for the next question."""
        at = TopicPartition(topic, partition)
        if at not in self._readers:
            self._readers[at] = await self._opened.enter_async_context(
                kafka.consumer(self._bootstrap, partitions=[at], start_timeout_s=self._timeout_s)
            )
        return at, self._readers[at]
