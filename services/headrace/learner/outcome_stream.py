"""Committed records of `outcomes`, all partitions, from given offsets on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.errors import OffsetOutOfRangeError

from headrace.learner.errors import OutcomesLostError
from headrace.learner.examples import OutcomeRecord
from headrace.platform import kafka
from headrace.platform.topics import Topics

POLL_MS = 500


class OutcomeStream:
    """Reads outcomes. Made by `outcome_stream`."""

    def __init__(self, reader: Any, partitions: Sequence[kafka.TopicPartition]) -> None:
        self._reader = reader
        self._partitions = list(partitions)
        self._ahead: list[OutcomeRecord] = []

    async def gather(self, within_s: float, limit: int) -> list[OutcomeRecord]:
        """What arrives within a time that begins with the first record; empty when none comes in half a second.

        Args:
            within_s: seconds to gather for; a partition without records is not waited for.
            limit: most records.

        Raises:
            OutcomesLostError: records that are due were deleted.
        """
        gathered = await self._poll(limit, POLL_MS)
        if not gathered:
            return gathered
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while (left_s := deadline - loop.time()) > 0 and len(gathered) < limit:
            gathered += await self._poll(limit - len(gathered), int(left_s * 1000) + 1)
        return gathered

    async def read_below(self, ends: Sequence[int], waiting: Callable[[Sequence[int]], None]) -> list[OutcomeRecord]:
        """All records below the given offsets that were not given before.

        Args:
            ends: by partition, exclusive. Reached when the reader's position is there: the last offsets below it may
                be markers of transactions, which are no records.
            waiting: called with the positions again and again until then.

        Raises:
            OutcomesLostError: records that are due were deleted.
        """
        while True:
            positions = await self.positions()
            behind = [p for p, at, end in zip(self._partitions, positions, ends, strict=True) if at < end]
            if not behind:
                break
            waiting(positions)
            passed = set(self._partitions) - set(behind)
            self._reader.pause(*passed)
            try:
                self._ahead += await self._poll(None, POLL_MS)
            finally:
                self._reader.resume(*passed)
        below = [record for record in self._ahead if record.offset < ends[record.partition]]
        self._ahead = [record for record in self._ahead if record.offset >= ends[record.partition]]
        return below

    async def positions(self) -> tuple[int, ...]:
        """By partition, the first offset that was not read yet."""
        return tuple([await self._reader.position(partition) for partition in self._partitions])

    async def _poll(self, limit: int | None, timeout_ms: int) -> list[OutcomeRecord]:
        try:
            found = await self._reader.getmany(*self._partitions, timeout_ms=timeout_ms, max_records=limit)
        except OffsetOutOfRangeError as error:
            raise OutcomesLostError(
                f"outcomes that are due are not in the topic any more, or it is another topic of the same name "
                f"({error}): keep outcomes for longer than the learner is ever down, or begin in a new namespace"
            ) from error
        return [
            OutcomeRecord(partition.partition, record.offset, record.timestamp * 1000, record.value or b"")
            for partition, records in found.items()
            for record in records
        ]


@asynccontextmanager
async def outcome_stream(
    bootstrap: str, topics: Topics, first_offsets: Sequence[int], *, only: Collection[int] | None = None
) -> AsyncIterator[OutcomeStream]:
    """Read `outcomes` from the given offsets on.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        first_offsets: by partition.
        only: the partitions to read; all where not given. The stream's positions are of these, in order.

    Raises:
        KafkaUnavailable: no broker answers in time.
    """
    partitions = [one for one in _partitions(topics, len(first_offsets)) if only is None or one.partition in only]
    async with kafka.consumer(bootstrap, partitions=partitions, offset_reset="none") as reader:
        for partition in partitions:
            reader.seek(partition, first_offsets[partition.partition])
        yield OutcomeStream(reader, partitions)


async def first_offsets(bootstrap: str, topics: Topics, count: int) -> tuple[int, ...]:
    """By partition, the first offset that is still there.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        count: number of partitions.

    Raises:
        KafkaUnavailable: no broker answers in time.
    """
    partitions = _partitions(topics, count)
    async with kafka.consumer(bootstrap, partitions=partitions) as reader:
        found = await reader.beginning_offsets(partitions)
    return tuple(found[partition] for partition in partitions)


def _partitions(topics: Topics, count: int) -> list[kafka.TopicPartition]:
    return [kafka.TopicPartition(topics.outcomes, number) for number in range(count)]
