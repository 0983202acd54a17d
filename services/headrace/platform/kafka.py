"""Kafka consumers and producers with the defaults that the guarantees rest on, as async context managers.

Consumers read committed records only and commit nothing by themselves. Producers are idempotent, wait for all replicas
and put a key where Kafka's Java client would. Entering and leaving have a deadline.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, UnknownTopicOrPartitionError
from aiokafka.errors import ProducerFenced as ClientProducerFenced

from headrace.platform.kafka_admin import (
    KafkaAdmin,
    committed_offsets,
    end_offsets,
    topic_ids,
    wait_for_kafka,
)
from headrace.platform.kafka_errors import (
    KafkaFault,
    KafkaRefused,
    KafkaUnavailable,
    ProducerFenced,
    TopicMismatch,
    TopicMissing,
)
from headrace.platform.partitioning import murmur2_partition, partitioner
from headrace.platform.tolerant_records import read_tolerantly

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from aiokafka import ConsumerRebalanceListener
    from aiokafka.structs import RecordMetadata

__all__ = [
    "KafkaAdmin",
    "KafkaFault",
    "KafkaRefused",
    "KafkaUnavailable",
    "ProducerFenced",
    "TopicMismatch",
    "TopicMissing",
    "TopicPartition",
    "committed_offsets",
    "consumer",
    "end_offsets",
    "murmur2_partition",
    "producer",
    "send",
    "topic_ids",
    "transaction",
    "transactional_producer",
    "translate",
    "wait_for_kafka",
]

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 30.0
RETRY_S = 0.2
SESSION_TIMEOUT_MS = 15_000
HEARTBEAT_MS = 3_000
REQUEST_TIMEOUT_MS = 40_000
TRANSACTION_TIMEOUT_MS = 60_000
MAX_BATCH_BYTES = 256 * 1024
MAX_REQUEST_BYTES = 4 * 1024 * 1024
FETCH_BYTES_PER_PARTITION = 4 * 1024 * 1024


@asynccontextmanager
async def consumer(
    bootstrap: str,
    *,
    topics: Sequence[str] = (),
    partitions: Iterable[TopicPartition] = (),
    group: str | None = None,
    listener: ConsumerRebalanceListener | None = None,
    offset_reset: str = "earliest",
    read_committed: bool = True,
    fetch_max_wait_ms: int = 100,
    start_timeout_s: float = START_TIMEOUT_S,
    **options: Any,
) -> AsyncIterator[AIOKafkaConsumer]:
    """A started consumer that commits only what it is told to.

    Args:
        bootstrap: Kafka brokers.
        topics: subscribe to these as a member of `group`; partitions come and go with rebalances.
        partitions: or read exactly these. `group`, if given, is only where offsets are committed.
        group: consumer group.
        listener: told of rebalances; only with `topics`.
        offset_reset: where to read from without a committed offset: "earliest", "latest", or "none" for an error.
        read_committed: hide records of open and aborted transactions.
        fetch_max_wait_ms: how long the broker may wait for records to come.
        start_timeout_s: for connecting, in seconds.
        **options: further options of `AIOKafkaConsumer`.

    Raises:
        KafkaUnavailable: no broker answers in time.
        ValueError: both or none of `topics` and `partitions`, or `topics` without `group`.
    """
    assigned = list(partitions)
    if bool(topics) == bool(assigned):
        raise ValueError("a consumer needs either topics or partitions")
    if topics and group is None:
        raise ValueError("a consumer of topics needs a group; name partitions to read without one")

    def build() -> AIOKafkaConsumer:
        built = AIOKafkaConsumer(
            **{
                "bootstrap_servers": bootstrap,
                "group_id": group,
                "enable_auto_commit": False,
                "auto_offset_reset": offset_reset,
                "isolation_level": "read_committed" if read_committed else "read_uncommitted",
                "fetch_max_wait_ms": fetch_max_wait_ms,
                "max_partition_fetch_bytes": FETCH_BYTES_PER_PARTITION,
                "session_timeout_ms": SESSION_TIMEOUT_MS,
                "heartbeat_interval_ms": HEARTBEAT_MS,
                "request_timeout_ms": REQUEST_TIMEOUT_MS,
                "metadata_max_age_ms": 60_000,
            }
            | options
        )
        if topics:
            built.subscribe(list(topics), listener=listener)
        else:
            built.assign(assigned)
        return built

    read_tolerantly()
    started = await _start(build, bootstrap, start_timeout_s)
    try:
        yield started
    finally:
        await _stop(started)


@asynccontextmanager
async def producer(
    bootstrap: str, *, linger_ms: int = 5, start_timeout_s: float = START_TIMEOUT_S, **options: Any
) -> AsyncIterator[AIOKafkaProducer]:
    """A started idempotent producer. What is in its buffer is sent when the block is left.

    Args:
        bootstrap: Kafka brokers.
        linger_ms: how long a record may wait for others to share its batch.
        start_timeout_s: for connecting, in seconds.
        **options: further options of `AIOKafkaProducer`.

    Raises:
        KafkaUnavailable: no broker answers in time.
    """

    def build() -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **{
                "bootstrap_servers": bootstrap,
                "acks": "all",
                "enable_idempotence": True,
                "linger_ms": linger_ms,
                "max_batch_size": MAX_BATCH_BYTES,
                "max_request_size": MAX_REQUEST_BYTES,
                "request_timeout_ms": REQUEST_TIMEOUT_MS,
                "partitioner": partitioner,
            }
            | options
        )

    started = await _start(build, bootstrap, start_timeout_s)
    try:
        yield started
    finally:
        await _stop(started)


@asynccontextmanager
async def transactional_producer(
    bootstrap: str,
    transactional_id: str,
    *,
    linger_ms: int = 0,
    start_timeout_s: float = START_TIMEOUT_S,
    **options: Any,
) -> AsyncIterator[AIOKafkaProducer]:
    """A started producer for transactions; it fences earlier ones of the same id, and ends what they left open.

    Args:
        bootstrap: Kafka brokers.
        transactional_id: who it is, across restarts.
        linger_ms: how long a record may wait for others to share its batch.
        start_timeout_s: for connecting, in seconds.
        **options: further options of `AIOKafkaProducer`.

    Raises:
        KafkaUnavailable: no broker answers in time.
    """
    settings = {"transactional_id": transactional_id, "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS} | options
    async with producer(bootstrap, linger_ms=linger_ms, start_timeout_s=start_timeout_s, **settings) as started:
        yield started


@asynccontextmanager
async def transaction(started: AIOKafkaProducer, *, timeout_s: float = SEND_TIMEOUT_S) -> AsyncIterator[None]:
    """A transaction over the block: committed when it ends well, else aborted.

    Args:
        started: a transactional producer.
        timeout_s: for the block and the commit together, in seconds.

    Raises:
        ProducerFenced: another process has this transactional id now.
        KafkaUnavailable: not committed in time; whether it took effect is known only after a restart.
        KafkaRefused: Kafka refuses it.
    """
    committing = False
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            await started.begin_transaction()
            yield
            committing = True
            await started.commit_transaction()
    except BaseException as error:
        if not committing:
            await _abort(started)
        if isinstance(error, KafkaError) or (isinstance(error, TimeoutError) and limit.expired()):
            raise translate(error, "the transaction was not committed") from error
        raise


async def send(
    started: AIOKafkaProducer,
    topic: str,
    value: bytes | None,
    *,
    key: bytes | None = None,
    partition: int | None = None,
    headers: Sequence[tuple[str, bytes]] | None = None,
    timestamp_ms: int | None = None,
    timeout_s: float = SEND_TIMEOUT_S,
) -> RecordMetadata:
    """Send one record and wait until it is stored.

    The client library waits without end for a topic that is not there, and for room in a full buffer; this does not.

    Raises:
        KafkaUnavailable: not acknowledged in time, which may be because there is no such topic; or it is stored all
            the same.
        KafkaRefused: Kafka refuses it.
        ProducerFenced: another process has this transactional id now.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await started.send_and_wait(
                topic, value, key=key, partition=partition, headers=headers, timestamp_ms=timestamp_ms
            )
    except (KafkaError, TimeoutError) as error:
        raise translate(error, f"a record for {topic} was not acknowledged within {timeout_s:g} s") from error


def translate(error: BaseException, what: str) -> KafkaFault:
    """Our exception for one of the client library's.

    Args:
        error: a `KafkaError`, `OSError` or `TimeoutError`.
        what: what did not happen, for the message.
    """
    detail = str(error) or type(error).__name__
    if isinstance(error, ClientProducerFenced):
        return ProducerFenced(f"{what}: another process has taken over the transactional id")
    if isinstance(error, UnknownTopicOrPartitionError):
        return TopicMissing(f"{what}: {detail}")
    if isinstance(error, KafkaError) and not error.retriable:
        return KafkaRefused(f"{what}: {detail}")
    return KafkaUnavailable(f"{what}: {detail}")


async def _start(build: Any, bootstrap: str, timeout_s: float) -> Any:
    """Start a client, with a new one for each attempt: one that failed to start cannot be started again."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        client = build()
        try:
            async with asyncio.timeout_at(deadline):
                await client.start()
        except IncompatibleBrokerVersion as error:
            await _stop(client)
            raise KafkaRefused(f"Kafka at {bootstrap}: {error}") from error
        except (KafkaError, OSError, TimeoutError) as error:
            await _stop(client)
            if loop.time() + RETRY_S >= deadline:
                raise translate(error, f"Kafka at {bootstrap} does not answer") from error
            await asyncio.sleep(RETRY_S)
        except BaseException:
            await _stop(client)
            raise
        else:
            return client


async def _abort(started: AIOKafkaProducer) -> None:
    # A transaction that cannot be aborted now is aborted by Kafka when its time is over, or by the next producer of
    # the id. What made it fail is what the caller must hear of. The library asserts that it is not in a fatal state.
    with suppress(KafkaError, TimeoutError, AssertionError):
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await started.abort_transaction()


async def _stop(client: Any) -> None:
    # The process is about to close it anyhow: what it cannot say to Kafka in time, Kafka finds out by itself.
    with suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(STOP_TIMEOUT_S):
            # A consumer without a group that is stopped before its own task has begun awaits a task that is cancelled,
            # and we would be taken for cancelled.
            await asyncio.sleep(0)
            await client.stop()
