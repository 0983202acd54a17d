"""The rollout's topics in Kafka: reads `models` and `control`, writes `routes` and `alerts`, and knows what it wrote
before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from headrace.platform.errors import OperatorError
from headrace.platform.kafka import TopicPartition, consumer, send, transaction, transactional_producer, translate
from headrace.platform.kafka_errors import KafkaUnavailable
from headrace.platform.logging import get_logger
from headrace.platform.topics import ROUTE_COMMAND_KEY, Topics, check_topics
from headrace.rollout.commands import Placed
from headrace.v1 import alert_pb2, model_pb2, route_pb2

RULE = "rollout"
POLL_MS = 500

log = get_logger("route_log")


class SupersededError(OperatorError):
    """Another rollout process has written a newer route table: this one must end."""

    # The next start reads that table and goes on from it.
    retriable = True


@dataclass
class News:
    """What the topics said, at the start or since the last time.

    Attributes:
        table: the last route table, None when there is none.
        models: the announced versions, in order, without those that were removed again.
        removed: names of versions that left by retention.
        commands: of operators, in order.
    """

    table: model_pb2.RouteTable | None = None
    models: list[model_pb2.ModelVersion] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    commands: list[Placed] = field(default_factory=list)


class RouteLog:
    """The topics of one deployed pipeline. Made by `open_route_log`."""

    def __init__(self, topics: Topics, reader: Any, writer: Any) -> None:
        self._topics = topics
        self._reader = reader
        self._writer = writer
        self._writing = asyncio.Lock()
        self._epoch = 0
        self._alert_ids: set[str] = set()

    async def restore(self, timeout_s: float = 60.0) -> News:
        """Read everything up to the present end.

        Raises:
            KafkaUnavailable: not done in time.
        """
        history = News()
        partitions = [TopicPartition(name, 0) for name in _names(self._topics)]
        try:
            async with asyncio.timeout(timeout_s):
                ends = await self._reader.end_offsets(partitions)
                while any([await self._reader.position(one) < end for one, end in ends.items()]):
                    for record in await self._records(POLL_MS):
                        self._take(record, history)
        except TimeoutError as error:
            raise KafkaUnavailable(f"{self._topics.models} was not read to its end in {timeout_s:g} s") from error
        return history

    async def news(self) -> AsyncIterator[News]:
        """Versions as they are announced and commands as they are given; now and then there is nothing.

        Raises:
            SupersededError: another process has written a newer route table.
            KafkaFault: the log cannot be read.
        """
        while True:
            history = News()
            for record in await self._records(POLL_MS):
                self._take(record, history)
            if history.table is not None and history.table.epoch > self._epoch:
                raise SupersededError(
                    f"{self._topics.routes} has epoch {history.table.epoch}, this process wrote {self._epoch}"
                )
            yield history

    def resume(self, epoch: int) -> None:
        """Take over the log as it was restored: the epoch of its last table."""
        self._epoch = epoch

    async def publish(self, table: model_pb2.RouteTable, alerts: Sequence[alert_pb2.Alert] = ()) -> None:
        """Write a route table, and what is to be said about it: both or nothing.

        Raises:
            ProducerFenced: another process is the rollout now.
            KafkaFault: it may or may not be on the log; a restart finds out.
        """
        # Before the write: the reader may see the record before the write has returned.
        self._epoch = max(self._epoch, table.epoch)
        said = [(self._topics.alerts, f"{one.rule}/{one.subject}", one.SerializeToString()) for one in alerts]
        await self._write((self._topics.routes, self._topics.deployed, table.SerializeToString()), *said)

    async def raise_alert(self, subject: str, event_time_us: int, value: float, threshold: float, detail: str) -> None:
        """Write an alert about a version, unless the log has it already.

        Args:
            subject: the version.
            event_time_us: event time of the version, in microseconds since 1970-01-01 UTC.
            value: what was measured.
            threshold: what was allowed.
            detail: one sentence.

        Raises:
            ProducerFenced: another process is the rollout now.
            KafkaFault: it may or may not be on the log; a restart finds out.
        """
        alert = alert_pb2.Alert(
            alert_id=f"{RULE}/{subject}/{event_time_us}",
            rule=RULE,
            subject=subject,
            event_time_us=event_time_us,
            value=value,
            threshold=threshold,
            state=alert_pb2.ALERT_STATE_RAISED,
            detail=detail,
        )
        if alert.alert_id in self._alert_ids:
            return
        self._alert_ids.add(alert.alert_id)
        await self._write((self._topics.alerts, f"{RULE}/{subject}", alert.SerializeToString()))

    async def _write(self, *records: tuple[str, str, bytes]) -> None:
        # A transaction also for its fence: a process that was replaced cannot commit.
        async with self._writing, transaction(self._writer):
            for topic, key, value in records:
                await send(self._writer, topic, value, key=key.encode())

    async def _records(self, timeout_ms: int) -> list[Any]:
        try:
            batches = await self._reader.getmany(timeout_ms=timeout_ms)
        except (OSError, RuntimeError) as error:
            raise translate(error, f"{self._topics.models} cannot be read") from error
        return [record for records in batches.values() for record in records]

    def _take(self, record: Any, history: News) -> None:
        if record.value is None:
            if record.topic == self._topics.models and record.key:
                name = record.key.decode(errors="replace")
                history.models = [one for one in history.models if one.version != name]
                history.removed.append(name)
            return
        try:
            if record.topic == self._topics.models:
                history.models.append(model_pb2.ModelVersion.FromString(record.value))
            elif record.topic == self._topics.control:
                if record.key == ROUTE_COMMAND_KEY:
                    command = route_pb2.RouteCommand.FromString(record.value)
                    history.commands.append(Placed(record.offset, command))
            elif record.topic == self._topics.routes:
                history.table = model_pb2.RouteTable.FromString(record.value)
            else:
                alert = alert_pb2.Alert.FromString(record.value)
                if alert.rule == RULE:
                    self._alert_ids.add(alert.alert_id)
        except DecodeError:
            log.error("record not readable", topic=record.topic, offset=record.offset)


@asynccontextmanager
async def open_route_log(bootstrap: str, topics: Topics) -> AsyncIterator[RouteLog]:
    """Become the rollout of a deployed pipeline: fence the one before, then read what it left.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.

    Raises:
        KafkaFault: no broker answers, or a topic is not there.
    """
    names = _names(topics)
    await check_topics(bootstrap, topics.deployed, only=names)
    # In this order: once the producer has started, the process before can write nothing more, and what it left open is
    # ended. Only then is the end of `routes` the end.
    async with (
        transactional_producer(bootstrap, topics.transactional_id("rollout", 0)) as writer,
        consumer(bootstrap, partitions=[TopicPartition(name, 0) for name in names]) as reader,
    ):
        yield RouteLog(topics, reader, writer)


def _names(topics: Topics) -> tuple[str, ...]:
    return topics.models, topics.routes, topics.alerts, topics.control
