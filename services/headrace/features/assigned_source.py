"""One topic as this worker is assigned it: reading on from the right place, batch by batch, and committing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, OffsetAndMetadata
from aiokafka.errors import CommitFailedError, IllegalGenerationError, IllegalStateError, UnknownMemberIdError

from headrace.features.errors import FenceMovedError
from headrace.features.metrics import FENCES_MOVED
from headrace.features.source_positions import StartingPoint, starting_points
from headrace.platform import kafka
from headrace.platform.feature_state import StateKeys
from headrace.platform.kafka import TopicPartition
from headrace.platform.logging import get_logger

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from headrace.platform.health import Component

REBALANCED = (CommitFailedError, IllegalGenerationError, UnknownMemberIdError, IllegalStateError)
IDLE_MS = 50

Records = Mapping[int, list[Any]]


class AssignedSource(ConsumerRebalanceListener):  # type: ignore[misc]
    """Reads a topic as a member of a group, from the positions that state and commit agree on.

    A batch that is under way is finished and committed before its partitions are given up.
    """

    def __init__(
        self,
        name: str,
        topic: str,
        group: str,
        bootstrap: str,
        client: Redis,
        keys: StateKeys,
        assigned: Callable[[Mapping[int, StartingPoint]], None],
        assignment: Component,
    ) -> None:
        """Args:
        name: "events" or "outcomes", as fences name it.
        topic: full topic name.
        group: consumer group.
        bootstrap: Kafka brokers.
        client: connection to the state, bytes undecoded.
        keys: names.
        assigned: told where each partition goes on, with all partitions that are assigned.
        assignment: becomes ready with the first assignment.
        """
        self._name = name
        self._topic = topic
        self._group = group
        self._bootstrap = bootstrap
        self._client = client
        self._keys = keys
        self._assigned = assigned
        self._assignment = assignment
        self._attached: asyncio.Future[AIOKafkaConsumer] = asyncio.get_running_loop().create_future()
        self._busy = asyncio.Lock()
        self._failure: BaseException | None = None
        self._log = get_logger(source=name)
        self.points: dict[int, StartingPoint] = {}

    @asynccontextmanager
    async def consuming(self) -> AsyncIterator[None]:
        """Be a member of the group while the block runs."""
        async with kafka.consumer(
            self._bootstrap, topics=[self._topic], group=self._group, listener=self, fetch_max_wait_ms=20
        ) as consumer:
            self._attached.set_result(consumer)
            yield

    async def run(
        self, process: Callable[[Records], Awaitable[None]], idle: Callable[[], Awaitable[None]], most: int
    ) -> None:
        """Read batches until cancelled.

        Args:
            process: handles a batch: records by partition, in offset order. A moved fence makes the source seek again.
            idle: called when nothing came for a moment.
            most: largest batch, in records.

        Raises:
            StateUnusableError: state and topic do not belong together.
        """
        consumer = await self._attached
        while True:
            found = await consumer.getmany(timeout_ms=IDLE_MS, max_records=most)
            if self._failure is not None:
                raise self._failure
            async with self._busy:
                batch = {at.partition: records for at, records in found.items() if at.partition in self.points}
                try:
                    if batch:
                        await process(batch)
                    elif not found:
                        await idle()
                except FenceMovedError as moved:
                    FENCES_MOVED.inc()
                    self._log.warning("fence moved, seeking again", reason=str(moved))
                    await self._seek(consumer.assignment())

    async def commit(self, offsets: Mapping[int, tuple[int, str]]) -> bool:
        """Commit offsets with metadata; a rebalance that came first is no error: what follows is read again.

        Args:
            offsets: for each partition the next offset to read, and text to keep with it.

        Returns:
            Whether they are committed.
        """
        consumer = await self._attached
        wanted = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, metadata)
            for partition, (offset, metadata) in offsets.items()
            if partition in self.points
        }
        try:
            if wanted:
                await consumer.commit(wanted)
        except REBALANCED as error:
            self._log.info("commit refused, partitions moved", reason=type(error).__name__)
            return False
        return True

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let the batch that is under way finish, then forget the partitions."""
        async with self._busy:
            self.points = {}
            self._assigned({})
        self._assignment.starting("rebalancing")

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Seek each partition to where state and commit say."""
        async with self._busy:
            # The consumer swallows what a listener raises, so the loop raises it.
            try:
                await self._seek(assigned)
            except Exception as error:  # noqa: BLE001 (raised by the loop)
                self._failure = error

    async def _seek(self, assigned: Iterable[TopicPartition]) -> None:
        consumer = await self._attached
        partitions = {at.partition: at for at in assigned}
        self.points = await starting_points(
            self._client, self._keys, self._name, partitions, self._bootstrap, self._group
        )
        for partition, point in self.points.items():
            consumer.seek(partitions[partition], point.offset)
        self._assigned(self.points)
        self._log.info(
            "partitions assigned",
            partitions={
                p: {"from": s.offset, "fence": s.fence, "committed": s.committed} for p, s in self.points.items()
            },
        )
        self._assignment.ready()
