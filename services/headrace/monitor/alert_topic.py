"""Reading and writing `alerts`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from google.protobuf.message import DecodeError

from headrace.platform.errors import OperatorError
from headrace.platform.kafka import TopicPartition, consumer, end_offsets, send, transaction
from headrace.platform.telemetry import inject_headers
from headrace.v1.alert_pb2 import Alert


class AlertsUnreadableError(OperatorError):
    """`alerts` could not be read to its end in time; the message says how far it got."""

    retriable = True


async def read_alerts(bootstrap: str, topic: str, stall_s: float) -> list[Alert]:
    """All alerts that the topic holds, in order. What cannot be decoded is passed over.

    Args:
        bootstrap: Kafka brokers.
        topic: full name of the topic, of one partition.
        stall_s: seconds that reading may go without progress.

    Raises:
        AlertsUnreadableError: no progress for that long.
        KafkaUnavailable: no broker answers in time.
    """
    end = (await end_offsets(bootstrap, topic))[0]
    partition = TopicPartition(topic, 0)
    alerts: list[Alert] = []
    async with consumer(bootstrap, partitions=[partition]) as reader:
        loop = asyncio.get_running_loop()
        at, deadline = await reader.position(partition), loop.time() + stall_s
        while at < end:
            for record in (await reader.getmany(partition, timeout_ms=200)).get(partition, []):
                try:
                    alerts.append(Alert.FromString(record.value or b""))
                except DecodeError:
                    continue
            now = await reader.position(partition)
            if now > at:
                at, deadline = now, loop.time() + stall_s
            elif loop.time() > deadline:
                raise AlertsUnreadableError(f"{topic} was read to {at} of {end}, then {stall_s:g} s without progress")
    return alerts


async def publish_alerts(producer: AIOKafkaProducer, topic: str, alerts: Sequence[Alert]) -> None:
    """Publish alerts in one transaction, keyed by rule and subject.

    Raises:
        ProducerFenced: another monitor has taken over.
        KafkaUnavailable: not committed in time.
        KafkaRefused: Kafka refuses it.
    """
    headers: list[tuple[str, bytes]] = []
    inject_headers(headers)
    async with transaction(producer):
        for alert in alerts:
            key = f"{alert.rule}/{alert.subject}".encode()
            await send(producer, topic, alert.SerializeToString(), key=key, headers=headers)
