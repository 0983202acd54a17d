"""What Kafka knows: brokers, topics and their ids, end offsets, committed offsets."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import DeleteGroupsRequest

from headrace.platform.kafka_errors import KafkaRefused, KafkaUnavailable, TopicMissing
from headrace.platform.kafka_metadata import TopicMetadataRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from aiokafka.admin import NewTopic

RETRY_S = 0.1
UNKNOWN_TOPIC = 3
REQUEST_TIMEOUT_MS = 10_000
NON_EMPTY_GROUP = 68
GROUP_ID_NOT_FOUND = 69


class KafkaAdmin:
    """Administration of a Kafka cluster, as an async context manager.

    Args:
        bootstrap: brokers, as host:port separated by commas.
        timeout_s: for connecting, and for each call, in seconds.

    Raises:
        KafkaUnavailable: on entry, when no broker answers in time.
    """

    def __init__(self, bootstrap: str, *, timeout_s: float = 10.0) -> None:
        self.bootstrap = bootstrap
        self.timeout_s = timeout_s
        self._client: Any = None
        self._readers: dict[bool, Any] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout_s
        while True:
            client = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=REQUEST_TIMEOUT_MS)
            try:
                async with asyncio.timeout_at(deadline):
                    await client.start()
            except (KafkaError, OSError, TimeoutError) as error:
                await client.close()
                if loop.time() + RETRY_S >= deadline:
                    raise KafkaUnavailable(f"Kafka at {self.bootstrap} does not answer: {_text(error)}") from error
                await asyncio.sleep(RETRY_S)
            except BaseException:
                await client.close()
                raise
            else:
                self._client = client
                return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for reader in self._readers.values():
            await reader.stop()
        await self._client.close()

    async def create_topics(self, topics: Sequence[NewTopic]) -> list[tuple[Any, ...]]:
        """Ask for topics; a (name, error code, message) for each. See `topics.create_topics`."""
        timeout_ms = int(self.timeout_s * 1000)
        response = await self._call(lambda: self._client.create_topics(list(topics), timeout_ms=timeout_ms))
        return list(response.topic_errors)

    async def delete_topics(self, topics: Sequence[str]) -> None:
        """Delete topics, and wait until brokers no longer name them; one that is not there is no error.

        Raises:
            KafkaRefused: the broker does not delete one.
            KafkaUnavailable: no answer in time.
        """
        response = await self._call(lambda: self._client.delete_topics(list(topics)))
        for name, code in response.topic_error_codes:
            if code not in {0, UNKNOWN_TOPIC}:
                raise KafkaRefused(f"Kafka does not delete {name}: {for_code(code).__name__}")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout_s
        while left := [one.name for one in await self._describe(topics) if one.code != UNKNOWN_TOPIC]:
            if loop.time() > deadline:
                raise KafkaUnavailable(f"topics {', '.join(left)} are still there {self.timeout_s:g} s after deletion")
            await asyncio.sleep(RETRY_S)

    async def partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """Number of partitions of each topic that is there with a leader for every partition.

        Raises:
            KafkaUnavailable: no answer in time.
        """
        return {one.name: one.partitions for one in await self._describe(topics) if one.code == 0 and one.has_leaders}

    async def topic_ids(self, topics: Iterable[str]) -> dict[str, uuid.UUID]:
        """The id of each topic: a topic that was deleted and created again has another one.

        Raises:
            TopicMissing: one is not there.
            KafkaUnavailable: no answer in time.
        """
        found = {one.name: one.id for one in await self._describe(topics) if one.code == 0}
        for name in topics:
            if name not in found:
                raise _missing(name)
        return found

    async def committed(self, group: str) -> dict[TopicPartition, tuple[int, str]]:
        """Committed offset and metadata of each partition that the group has committed.

        Raises:
            KafkaUnavailable: no answer in time.
        """
        found = await self._call(lambda: self._client.list_consumer_group_offsets(group))
        return {
            partition: (committed.offset, committed.metadata or "")
            for partition, committed in found.items()
            if committed.offset >= 0
        }

    async def delete_group(self, group: str) -> None:
        """Delete a consumer group with its committed offsets; one that is not there is no error.

        Raises:
            KafkaRefused: the group has members.
            KafkaUnavailable: no answer in time.
        """

        async def ask() -> Any:
            coordinator = await self._client.find_coordinator(group)
            return await self._client._send_request(DeleteGroupsRequest([group]), coordinator)

        response = await self._call(ask)
        for _, code in response.results:
            if code == NON_EMPTY_GROUP:
                raise KafkaRefused(f"consumer group {group} has members, so it is not deleted")
            if code not in {0, GROUP_ID_NOT_FOUND}:
                raise KafkaRefused(f"Kafka does not delete group {group}: {for_code(code).__name__}")

    async def end_offsets(self, topics: Iterable[str], *, read_committed: bool = True) -> dict[TopicPartition, int]:
        """The offset after the last record of each partition, as readers see it.

        Args:
            topics: full names.
            read_committed: up to the first open transaction (the last stable offset); else the high watermark.

        Raises:
            TopicMissing: one is not there.
            KafkaUnavailable: no answer in time.
        """
        partitions = await self._partitions_of(topics)
        consumer = await self._reader(read_committed=read_committed)
        found: dict[TopicPartition, int] = await self._call(lambda: consumer.end_offsets(partitions))
        return found

    async def begin_offsets(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """The first offset that each partition still has.

        Args:
            topics: full names.

        Raises:
            TopicMissing: one is not there.
            KafkaUnavailable: no answer in time.
        """
        partitions = await self._partitions_of(topics)
        consumer = await self._reader(read_committed=False)
        found: dict[TopicPartition, int] = await self._call(lambda: consumer.beginning_offsets(partitions))
        return found

    async def _partitions_of(self, topics: Iterable[str]) -> list[TopicPartition]:
        names = list(topics)
        counts = await self.partitions(names)
        for name in names:
            if name not in counts:
                raise _missing(name)
        return [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]

    async def _reader(self, *, read_committed: bool) -> Any:
        """A consumer without a group, kept for the next question."""
        if read_committed not in self._readers:
            reader = AIOKafkaConsumer(
                bootstrap_servers=self.bootstrap,
                isolation_level="read_committed" if read_committed else "read_uncommitted",
                enable_auto_commit=False,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
            )
            self._readers[read_committed] = reader
            await self._call(reader.start)
        return self._readers[read_committed]

    async def _describe(self, topics: Iterable[str]) -> Sequence[Any]:
        names = sorted(set(topics))
        response = await self._call(lambda: self._client._send_request(TopicMetadataRequest(names)))
        described: Sequence[Any] = response.described()
        return described

    async def _call(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until there is an answer: a coordinator that is just being elected, say, is worth asking again."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.timeout_s
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await call()
            except (KafkaError, OSError, TimeoutError) as error:
                if isinstance(error, KafkaError) and not error.retriable:
                    raise KafkaRefused(f"Kafka at {self.bootstrap}: {_text(error)}") from error
                if loop.time() + RETRY_S >= deadline:
                    raise KafkaUnavailable(f"Kafka at {self.bootstrap} does not answer: {_text(error)}") from error
                await asyncio.sleep(RETRY_S)


async def wait_for_kafka(bootstrap: str, timeout_s: float = 30.0) -> None:
    """Wait until a broker answers.

    Raises:
        KafkaUnavailable: none does in time.
    """
    async with KafkaAdmin(bootstrap, timeout_s=timeout_s):
        pass


async def topic_ids(bootstrap: str, topics: Iterable[str], timeout_s: float = 10.0) -> dict[str, uuid.UUID]:
    """The id of each topic; see `KafkaAdmin.topic_ids`."""
    async with KafkaAdmin(bootstrap, timeout_s=timeout_s) as admin:
        return await admin.topic_ids(topics)


async def committed_offsets(bootstrap: str, group: str, timeout_s: float = 10.0) -> dict[TopicPartition, int]:
    """Committed offset of each partition that the group has committed: the next one it will read.

    Raises:
        KafkaUnavailable: no answer in time.
    """
    async with KafkaAdmin(bootstrap, timeout_s=timeout_s) as admin:
        return {partition: offset for partition, (offset, _) in (await admin.committed(group)).items()}


async def end_offsets(
    bootstrap: str, topic: str, *, read_committed: bool = True, timeout_s: float = 10.0
) -> dict[int, int]:
    """The offset after the last record of each partition, as readers see it.

    Args:
        bootstrap: Kafka brokers.
        topic: full name of the topic.
        read_committed: up to the first open transaction (the last stable offset); else the high watermark.
        timeout_s: for everything, in seconds.

    Raises:
        TopicMissing: there is no such topic.
        KafkaUnavailable: no answer in time.
    """
    async with KafkaAdmin(bootstrap, timeout_s=timeout_s) as admin:
        found = await admin.end_offsets([topic], read_committed=read_committed)
    return {partition.partition: offset for partition, offset in found.items()}


def _missing(topic: str) -> TopicMissing:
    return TopicMissing(f"topic {topic} is not there; `headrace topics create` creates the pipeline's topics")


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
