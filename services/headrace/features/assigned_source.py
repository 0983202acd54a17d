"""One topic as this worker is assigned it: reading on from the right place, batch by batch, and committing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import redis.exceptions
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, OffsetAndMetadata
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    UnknownMemberIdError,
)

from headrace.features.errors import FenceMovedError, StalledError
from headrace.features.metrics import FENCES_MOVED
from headrace.features.source_positions import StartingPoint, check_fences, starting_points
from headrace.platform import kafka
from headrace.platform.feature_state import StateKeys
from headrace.platform.kafka import TopicPartition
from headrace.platform.logging import get_logger
from headrace.platform.redis import RedisUnavailable

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from headrace.platform.health import Component, Heartbeat

REBALANCED = (CommitFailedError, IllegalGenerationError, UnknownMemberIdError, IllegalStateError)
SESSION_TIMEOUT_MS = 6_000
"""How long a killed worker keeps its partitions from the next one. Brokers accept no less by default."""
IDLE_MS = 50
IDLE_CHECK_S = 1.0
LAST_COMMIT_S = 5.0
WATCH_S = 1.0
SUSPENDED_S = 5.0


@dataclass(frozen=True)
class PartitionBatch:
    """What was read of one partition.

    Attributes:
        records: in offset order; none where only markers of transactions were passed.
        through: offset up to which everything is read, markers included.
    """

    records: list[Any]
    through: int


Batch = Mapping[int, PartitionBatch]


class PartitionStream(Protocol):
    """What is done with the batches of a source."""

    def assigned(self, points: Mapping[int, StartingPoint]) -> None:
        """Go on from these points, with these partitions only."""

    def fences(self) -> Mapping[int, int]:
        """Last merged offset of each assigned partition, as this worker left it."""

    def event_time(self, partition: int) -> int:
        """Where the partition's event time stands; what is furthest behind is read first."""

    async def process(self, source: AssignedSource, batch: Batch) -> None:
        """Handle a batch. A moved fence makes the source seek again."""

    async def commit(self, source: AssignedSource) -> None:
        """Commit what is handled and not committed."""

    async def close(self) -> None:
        """Give up what is still under way. Called once, when the source has ended."""


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
        stream: PartitionStream,
        assignment: Component,
        heartbeat: Heartbeat,
        stall_timeout_s: float,
    ) -> None:
        """Args:
        name: "events" or "outcomes", as fences name it.
        topic: full topic name.
        group: consumer group.
        bootstrap: Kafka brokers.
        client: connection to the state, bytes undecoded.
        keys: names.
        stream: handles the batches.
        assignment: becomes ready with the first assignment.
        heartbeat: beats whenever the loop comes round.
        stall_timeout_s: longest time for one step, and without an answer from Kafka, in seconds.
        """
        self._name = name
        self._topic = topic
        self._group = group
        self._bootstrap = bootstrap
        self._client = client
        self._keys = keys
        self._stream = stream
        self._assignment = assignment
        self._heartbeat = heartbeat
        self._stall_timeout_s = stall_timeout_s
        self._attached: asyncio.Future[AIOKafkaConsumer] = asyncio.get_running_loop().create_future()
        self._busy = asyncio.Lock()
        self._failure: BaseException | None = None
        self._stopping = False
        self._next: dict[int, int] = {}
        """Next offset to be handled of each assigned partition."""
        self._checked_at = 0.0
        self._came_round = time.monotonic()
        self._heard: dict[int, tuple[object, float]] = {}
        self._log = get_logger(source=name)

    @asynccontextmanager
    async def consuming(self) -> AsyncIterator[None]:
        """Be a member of the group while the block runs."""
        async with kafka.consumer(
            self._bootstrap,
            topics=[self._topic],
            group=self._group,
            listener=self,
            fetch_max_wait_ms=20,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=SESSION_TIMEOUT_MS // 4,
            # Where to read is decided here. A position that is not in the log (any more) is never skipped quietly.
            offset_reset="none",
        ) as consumer:
            self._attached.set_result(consumer)
            yield

    @property
    def partitions(self) -> Collection[int]:
        """The partitions that are assigned now."""
        return self._next.keys()

    def stop(self) -> None:
        """Let `run` end after the batch that is under way."""
        self._stopping = True

    async def run(self, most: int) -> None:
        """Read batches until stopped, then commit.

        Args:
            most: largest batch, in records.

        Raises:
            StateUnusableError: state and topic do not belong together.
            StalledError: a batch was not handled in time.
            KafkaError: Kafka refuses to be read.
            RedisUnavailable: the state could not be reached.
        """
        consumer = await self._attached
        try:
            while not self._stopping:
                found = await self._read(consumer, most)
                self._heartbeat.beat()
                self._came_round = time.monotonic()
                if self._failure is not None:
                    raise self._failure
                async with self._busy, self._in_time():
                    try:
                        if found is None:
                            await self._seek(consumer.assignment())
                        else:
                            await self._handle(consumer, found)
                    except FenceMovedError as moved:
                        FENCES_MOVED.inc()
                        self._log.warning("fence moved, seeking again", reason=str(moved))
                        await self._seek(consumer.assignment())
            async with self._busy, self._in_time():
                await self._stream.commit(self)
        finally:
            await self._stream.close()
        self._heartbeat.suspend()

    async def watch(self) -> None:
        """Until the source makes no progress, which is raised.

        Raises:
            StalledError: the loop hangs, or Kafka has not answered for a partition that there is nothing left to
                handle of.
        """
        consumer = await self._attached
        now = time.monotonic()
        while True:
            await asyncio.sleep(WATCH_S)
            before, now = now, time.monotonic()
            if now - before > SUSPENDED_S:  # the process was stopped meanwhile, not Kafka
                self._heard.clear()
                self._came_round = now
            if not self._stopping and now - self._came_round > self._stall_timeout_s:
                raise StalledError(f"{self._name}: the loop has not come round for {self._stall_timeout_s:g} s")
            for partition, offset in self._next.items():
                polled = (offset, consumer.last_poll_timestamp(TopicPartition(self._topic, partition)))
                known, at = self._heard.get(partition, (None, now))
                if polled != known:
                    self._heard[partition] = (polled, now)
                elif now - at > self._stall_timeout_s:
                    raise StalledError(
                        f"{self._topic}/{partition}: Kafka has not answered for {self._stall_timeout_s:g} s"
                    )

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
            if partition in self._next
        }
        try:
            if wanted:
                await consumer.commit(wanted)
        except REBALANCED as error:
            self._log.info("commit refused, partitions moved", reason=type(error).__name__)
            return False
        return True

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let the batch that is under way finish, commit, then forget the partitions."""
        async with self._busy:
            try:
                if self._next:
                    async with asyncio.timeout(LAST_COMMIT_S):
                        await self._stream.commit(self)
            except (KafkaError, kafka.KafkaFault, TimeoutError) as error:  # it is evaluated and published again
                self._log.warning("not committed before a rebalance", reason=str(error) or type(error).__name__)
            finally:
                self._next = {}
                self._stream.assigned({})
                self._assignment.starting("rebalancing")

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Seek each partition to where state and commit say."""
        async with self._busy:
            # The consumer swallows what a listener raises, so the loop raises it.
            try:
                async with self._in_time():
                    await self._seek(assigned)
            except Exception as error:  # noqa: BLE001 (raised by the loop)
                self._failure = error

    async def _read(self, consumer: AIOKafkaConsumer, most: int) -> Mapping[TopicPartition, list[Any]] | None:
        """A batch, from the partition whose event time is furthest behind first; None if a position is not there."""
        found: dict[TopicPartition, list[Any]] = {}
        try:
            for partition in sorted(self._next, key=self._stream.event_time):
                at = TopicPartition(self._topic, partition)
                found |= await consumer.getmany(at, max_records=most)
                most -= len(found.get(at, ()))
                if not most:
                    break
            if not found:
                found = await consumer.getmany(timeout_ms=IDLE_MS, max_records=most)
        except OffsetOutOfRangeError as error:
            self._log.warning("position is not in the log", reason=str(error))
            return None
        except NoOffsetForPartitionError:  # assigned a moment ago: the listener has not come to seeking yet
            return {}
        if found:
            self._heard.clear()
        return found

    async def _handle(self, consumer: AIOKafkaConsumer, found: Mapping[TopicPartition, list[Any]]) -> None:
        batch: dict[int, PartitionBatch] = {}
        for partition, offset in self._next.items():
            at = TopicPartition(self._topic, partition)
            # Behind the last record there may be markers of transactions, which are passed without being delivered.
            # What was read before a seek may begin anywhere; it is told by the position that the seek has set back.
            position = await consumer.position(at)
            if position > offset:
                batch[partition] = PartitionBatch(found.get(at, []), position - 1)
        if batch:
            await self._stream.process(self, batch)
            self._next |= {partition: one.through + 1 for partition, one in batch.items()}
            return
        await self._stream.commit(self)
        if time.monotonic() - self._checked_at > IDLE_CHECK_S:
            await check_fences(self._client, self._keys, self._name, self._stream.fences())
            self._checked_at = time.monotonic()

    async def _seek(self, assigned: Iterable[TopicPartition]) -> None:
        consumer = await self._attached
        partitions = {at.partition: at for at in assigned}
        points = await starting_points(
            self._client, self._keys, self._name, self._topic, list(partitions), self._bootstrap, self._group
        )
        for partition, point in points.items():
            consumer.seek(partitions[partition], point.offset)
        self._next = {partition: point.offset for partition, point in points.items()}
        self._heard.clear()
        self._stream.assigned(points)
        self._log.info(
            "partitions assigned",
            partitions={p: {"from": s.offset, "fence": s.fence, "committed": s.committed} for p, s in points.items()},
        )
        self._assignment.ready()

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        limit = asyncio.timeout(self._stall_timeout_s)
        try:
            async with limit:
                yield
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
            # Whether the last write took effect is known only to the fence, so the next worker starts from there.
            raise RedisUnavailable(f"{self._name}: Redis does not answer: {error}") from error
        except TimeoutError as error:
            if limit.expired():
                raise StalledError(f"{self._name}: not handled within {self._stall_timeout_s:g} s") from error
            raise
