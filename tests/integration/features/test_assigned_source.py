"""Reading an assigned topic from the right place, whatever the consumer has read ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from headrace.features import assigned_source
from headrace.features.assigned_source import AssignedSource, Batch
from headrace.features.event_merging import PartitionProgress
from headrace.features.source_positions import StartingPoint, starting_points
from headrace.features.time_guard import TimeGuard
from headrace.platform import kafka
from headrace.platform.health import Health
from tests.integration.features.deployment import Deployment
from tests.integration.features.log_contents import partitions_of
from tests.integration.features.payments import Sent


class Seen:
    """A stream that keeps the offsets it was given of partition 0."""

    def __init__(self, enough: int) -> None:
        self.points: Mapping[int, StartingPoint] = {}
        self.offsets: list[int] = []
        self.enough = enough
        self.done = asyncio.Event()

    def assigned(self, points: Mapping[int, StartingPoint]) -> None:
        self.points = points

    def fences(self) -> Mapping[int, int]:
        return {}

    def event_time(self, partition: int) -> int:
        return partition

    async def process(self, source: AssignedSource, batch: Batch) -> None:
        self.offsets += [record.offset for record in batch[0].records]
        if batch[0].through >= self.enough:
            self.done.set()

    async def commit(self, source: AssignedSource) -> None:
        pass

    async def close(self) -> None:
        pass


async def test_what_was_read_before_the_seek_is_read_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumer reads on from the commit while the worker still asks where it has to begin: earlier."""
    topic, group = deployment.topics.events, deployment.topics.group("features")
    await deployment.publish([Sent(0, b"k", b"v", []) for _ in range(100)])
    async with kafka.consumer(deployment.bootstrap, partitions=partitions_of(topic), group=group) as consumer:
        await consumer.commit({at: 0 if at.partition else 60 for at in partitions_of(topic)})
    await deployment.client.hset(deployment.keys.fences, "events/0", "41")
    await deployment.client.hset(deployment.keys.sources, "events/0", PartitionProgress().encode(TimeGuard(5)))

    stream, health, read_ahead = Seen(99), Health("test"), asyncio.Event()
    source = AssignedSource(
        "events",
        topic,
        group,
        deployment.bootstrap,
        deployment.client,
        deployment.keys,
        stream,
        health.component("events"),
        health.heartbeat("events", 60),
        30,
    )
    read = source._read

    async def reading(*arguments: Any) -> Any:
        found = await read(*arguments)
        if found:
            read_ahead.set()
        return found

    async def late(*arguments: Any) -> Any:
        await asyncio.wait_for(read_ahead.wait(), 10)
        monkeypatch.undo()
        return await starting_points(*arguments)

    monkeypatch.setattr(source, "_read", reading)
    monkeypatch.setattr(assigned_source, "IDLE_MS", 10_000)
    monkeypatch.setattr(assigned_source, "starting_points", late)
    async with source.consuming():
        running = asyncio.create_task(source.run(30))
        await asyncio.wait_for(stream.done.wait(), 20)
        assert health.component("events").state == "ready"
        source.stop()
        await asyncio.wait_for(running, 10)
    assert stream.points[0] == StartingPoint(42, 41, 60, TimeGuard(5), 0)
    assert stream.offsets == list(range(42, 100))
