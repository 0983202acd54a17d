"""The topic `models`: what was announced, and announcing.

Announcements go through a transactional producer with a fixed transactional id. When a learner starts it, Kafka
fences every earlier holder of that id, so a process that was taken for dead cannot announce any more. Only then the
topic is read, to its end, and the epoch of this learner is the highest announced one plus 1. So epochs only rise, two
processes that announce never share one, and no count of Kafka's own that can begin anew is relied on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from headrace.learner.errors import LearnerError
from headrace.learner.retention import Retention, outdated
from headrace.platform import kafka
from headrace.platform.route_reading import RouteTables, named, open_route_tables
from headrace.platform.topics import Topics
from headrace.v1.model_pb2 import ModelVersion

READ_TIMEOUT_S = 60.0


async def read_announced(bootstrap: str, topics: Topics, timeout_s: float = READ_TIMEOUT_S) -> list[ModelVersion]:
    """All versions that are announced and not removed, oldest first, without those of fenced learners.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        timeout_s: for everything, in seconds.

    Raises:
        KafkaUnavailable: not read in time.
        LearnerError: a record is not a ModelVersion; names its offset.
    """
    partition = kafka.TopicPartition(topics.models, 0)
    end = (await kafka.end_offsets(bootstrap, topics.models))[0]
    if end == 0:
        return []
    found: dict[str, ModelVersion] = {}
    epoch = 0
    try:
        async with asyncio.timeout(timeout_s), kafka.consumer(bootstrap, partitions=[partition]) as reader:
            reader.seek(partition, 0)
            while await reader.position(partition) < end:
                for record in (await reader.getmany(partition, timeout_ms=200)).get(partition, []):
                    name = (record.key or b"").decode()
                    if record.value is None:
                        found.pop(name, None)
                        continue
                    version = _parse(record.value, record.offset)
                    if version.learner_epoch >= epoch:
                        epoch = version.learner_epoch
                        found[version.version] = version
    except TimeoutError as error:
        raise kafka.KafkaUnavailable(f"{topics.models} was not read to offset {end} in {timeout_s:g} s") from error
    return [found[name] for name in sorted(found, key=int)]


class Announcer:
    """Announces versions, those of one state in one Kafka transaction with the offsets they cover. Made by `announcer`.

    Attributes:
        announced: the versions that are announced, oldest first.
        epoch: leadership epoch of this process.
    """

    def __init__(
        self,
        producer: Any,
        topics: Topics,
        announced: Sequence[ModelVersion],
        retention: Retention,
        routes: RouteTables,
    ) -> None:
        self.announced = list(announced)
        self.epoch = 1 + max((version.learner_epoch for version in self.announced), default=0)
        self._producer = producer
        self._topics = topics
        self._retention = retention
        self._routes = routes

    @property
    def newest(self) -> ModelVersion | None:
        """The version announced last."""
        return self.announced[-1] if self.announced else None

    async def announce(self, versions: Sequence[ModelVersion], next_command: int) -> None:
        """Announce versions of one state, and remove older ones as the retention says.

        All are announced or none, so that models that are learned side by side never come apart. The offsets that
        they cover are committed for the learner's group in the same transaction; they are for people and tools that
        watch its lag. The learner itself goes by the snapshots.

        Args:
            versions: at least one, in order of name; their files are stored already.
            next_command: offset in `control` of the first command that is not handled.

        Raises:
            ProducerFenced: another learner has taken over.
            KafkaUnavailable: not committed in time; a restart finds out whether it was.
        """
        leaving = await self._outdated(versions)
        removed = {one.version for one in leaving}
        # Before they leave `models`, so that there is no moment in which a prediction of theirs cannot be traced.
        await asyncio.to_thread(self._retention.record, leaving)
        offsets = {kafka.TopicPartition(self._topics.outcomes, one.partition): one.end for one in versions[0].learned}
        offsets[kafka.TopicPartition(self._topics.control, 0)] = next_command
        async with kafka.transaction(self._producer):
            for version in versions:
                await self._send(version.version, version.SerializeToString())
            for old in leaving:
                await self._send(old.version, None)
            await self._producer.send_offsets_to_transaction(offsets, self._topics.group("learner"))
        self.announced = [one for one in (*self.announced, *versions) if one.version not in removed]
        # Only after the announcements are gone: nobody is sent to a file that is not there.
        await asyncio.to_thread(self._retention.remove, leaving)
        await asyncio.to_thread(self._retention.sweep, {one.version for one in self.announced})

    async def _outdated(self, versions: Sequence[ModelVersion]) -> list[ModelVersion]:
        if not outdated(self.announced, versions, self._retention.keep, ()):
            return []
        # Asked each time: which versions serve is not this service's to say, and may be as old as one likes.
        in_use = named(await self._routes.newest())
        return outdated(self.announced, versions, self._retention.keep, in_use)

    async def _send(self, key: str, value: bytes | None) -> None:
        await kafka.send(self._producer, self._topics.models, value, key=key.encode(), partition=0)


@asynccontextmanager
async def announcer(bootstrap: str, topics: Topics, retention: Retention) -> AsyncIterator[Announcer]:
    """Fence earlier learners, then read what is announced.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        retention: removes what is outdated.

    Raises:
        KafkaUnavailable: no broker answers in time.
    """
    async with (
        kafka.transactional_producer(bootstrap, topics.transactional_id("learner", 0)) as producer,
        open_route_tables(bootstrap, topics) as routes,
    ):
        yield Announcer(producer, topics, await read_announced(bootstrap, topics), retention, routes)


def _parse(value: bytes, offset: int) -> ModelVersion:
    try:
        version = ModelVersion.FromString(value)
        int(version.version)
    except ValueError as error:  # DecodeError is one
        raise LearnerError(f"models@{offset} is not a ModelVersion: {error}") from error
    return version
