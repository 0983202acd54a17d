"""Idle keys leave a real Redis by event time, and nothing that is alive goes with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from headrace.features.accepted_events import AcceptedEvent, AcceptedEvents
from headrace.features.event_merging import EventMerger, PartitionProgress
from headrace.features.outcome_merging import OutcomeMerger
from headrace.features.state_writer import StateWriter
from headrace.features.sweeping import Sweeper
from headrace.features.time_guard import TimeGuard
from headrace.features.trimming import Rewrite
from headrace.pipeline import DAY
from headrace.pipeline.state import compile_plan
from headrace.platform.event_codec import CheckedEvent
from headrace.platform.feature_state import FeatureStateReader
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis_connection import RedisConnections
from headrace.v1.event_pb2 import Event
from tests.integration.features.deployment import Deployment
from tests.integration.features.payments import Payments, Sent, outcome

plan = compile_plan(load_pipeline("pipelines/fraud.py"))
names = plan.pipeline.feature_names
START = 1_600_000_000_000_000


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture
async def connections(redis_url: str) -> AsyncIterator[RedisConnections]:
    made = RedisConnections(redis_url)
    yield made
    await made.aclose()


class State:
    """The state of a pipeline of its own, with a worker of one partition and a sweeper."""

    def __init__(self, client: Redis, connections: RedisConnections, namespace: str) -> None:
        self.client = client
        reader = FeatureStateReader(connections, plan, namespace)
        self.keys = reader.keys
        self.writer = StateWriter(connections, reader.keys, 3600)
        self.worker = EventMerger(plan, reader, self.writer, 100)
        self.worker.progress[0] = PartitionProgress()
        self.labels = OutcomeMerger(plan, reader.keys, self.writer)
        self.sweeper = Sweeper(client, plan, reader.keys, self.writer, 1e6)
        self.offset = 0

    async def pay(self, day: float, customer: str, terminal: str) -> list[float]:
        """Merge a payment, commit it, and give its vector."""
        time_us = START + int(day * DAY)
        event = CheckedEvent(f"e{self.offset}", time_us, [customer, terminal], [100.0], False)
        accepted = AcceptedEvent(self.offset, 1, None, event, TimeGuard(time_us))
        evaluated = await self.worker.merge([(0, AcceptedEvents.of(plan.pipeline, [accepted]))])
        self.offset += 1
        self.worker.progress[0].committed_highest = time_us
        return [float(value) for value in evaluated.values[0]]

    async def label(self, day: float, customer: str, terminal: str) -> None:
        """Merge the label of a payment."""
        event = Event(event_id=f"l{self.offset}", event_time_us=START + int(day * DAY), texts=[customer, terminal])
        await self.labels.merge(0, [(self.offset, 1, outcome(event, fraud=True))], self.offset)

    async def logs(self) -> set[str]:
        """Which logs there are, as "e:customer:c1"."""
        prefix = f"{self.keys.prefix}:"
        found = [name.decode().removeprefix(prefix) async for name in self.client.scan_iter(f"{prefix}*", 1000)]
        return {name for name in found if name[:2] in ("e:", "l:")}


async def test_an_idle_key_leaves_and_returns_clean(
    client: Redis, connections: RedisConnections, namespace: str
) -> None:
    state = State(client, connections, namespace)
    await state.pay(0, "idle", "t-idle")
    await state.label(0, "idle", "t-idle")
    assert await state.sweeper.sweep() == 0
    for day in range(1, 31):
        await state.pay(day, "busy", "t-busy")
    assert await state.sweeper.sweep() == 0, "a window may still reach what lies 30 days back"
    for day in range(31, 43):
        await state.pay(day, "busy", "t-busy")
    assert await state.sweeper.sweep() == 3
    assert await state.logs() == {"e:customer:busy", "e:terminal:t-busy"}
    vector = await state.pay(43, "idle", "t-idle")
    assert vector[names.index("customer_count_30d")] == 1
    assert vector[names.index("terminal_count_30d")] == 0
    assert await client.strlen(state.keys.event_log("customer") + "idle") == plan.entities[0].event_record.itemsize
    assert await state.sweeper.sweep() == 0


async def test_nothing_is_swept_before_every_partition_has_said_how_far_it_is(
    client: Redis, connections: RedisConnections, namespace: str
) -> None:
    state = State(client, connections, namespace)
    await client.hset(state.keys.sources, "events/1", "")
    await state.pay(0, "idle", "t-idle")
    await state.pay(100, "busy", "t-busy")
    await state.pay(101, "busy", "t-busy")
    assert await state.sweeper.sweep() == 0


async def test_an_append_between_reading_and_deleting_loses_nothing(
    client: Redis, connections: RedisConnections, namespace: str
) -> None:
    state = State(client, connections, namespace)
    for day in (0, 100, 101):
        await state.pay(day, "c", f"t{day}")
        await state.pay(day, f"c{day}", "t")
    name = state.keys.event_log("customer") + "c0"
    rewrite = state.writer.rewrite

    async def late(of: list[str], rewrites: list[Rewrite], safe: int) -> int:
        if name in of:
            await client.append(name, b"\x7f" * plan.entities[0].event_record.itemsize)
        return await rewrite(of, rewrites, safe)

    state.writer.rewrite = late  # type: ignore[method-assign,assignment]
    assert await state.sweeper.sweep() == 1, "the other one that has expired: the terminal of day 0"
    assert await client.strlen(name) == 2 * plan.entities[0].event_record.itemsize


async def test_a_worker_that_read_a_log_before_it_was_swept_evaluates_again(
    client: Redis, connections: RedisConnections, namespace: str
) -> None:
    state = State(client, connections, namespace)
    await state.pay(0, "idle", "t")
    for day in (99, 100, 101):
        await state.pay(day, "busy", "t")
    append, calls = state.writer.append, 0

    async def late(*arguments: object) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            assert await state.sweeper.sweep() == 1
        return await append(*arguments)  # type: ignore[arg-type]

    state.writer.append = late  # type: ignore[method-assign,assignment]
    vector = await state.pay(102, "idle", "t")
    assert vector[names.index("customer_count_30d")] == 1
    stored: Any = await client.hget(state.keys.sources, "rewritten")
    assert int(stored) >= 1
    assert await client.strlen(state.keys.event_log("customer") + "idle") == plan.entities[0].event_record.itemsize


async def test_two_may_sweep_at_once(client: Redis, connections: RedisConnections, namespace: str) -> None:
    state = State(client, connections, namespace)
    for number in range(30):
        await state.pay(0, f"c{number}", "t")
    for day in (100, 101):
        await state.pay(day, "busy", "t")
    other = Sweeper(client, plan, state.keys, state.writer, 1e6)
    rewrite = state.writer.rewrite

    async def overtaken(*arguments: object) -> int:
        state.writer.rewrite = rewrite  # type: ignore[method-assign]
        await other.sweep()
        return await rewrite(*arguments)  # type: ignore[arg-type]

    state.writer.rewrite = overtaken  # type: ignore[method-assign,assignment]
    await state.sweeper.sweep()
    assert await state.logs() == {"e:customer:busy", "e:terminal:t"}
    rewritten: Any = await client.hget(state.keys.sources, "rewritten")
    assert int(rewritten) == 30


@pytest.mark.timeout(300)
async def test_a_worker_sweeps_while_events_flow(deployment: Deployment) -> None:
    stream = Payments(deployment.plan.pipeline, 3000, seed=51)
    idle = Event(
        event_id="idle",
        event_time_us=stream.events[0].event_time_us,
        schema_fingerprint=deployment.plan.pipeline.schema_fingerprint,
        texts=["idle", "idle"],
        numbers=[1.0],
    )
    await deployment.publish([Sent(0, b"idle", idle.SerializeToString(), []), *stream.records[:-200]])
    names = [deployment.keys.event_log(entity) + "idle" for entity in ("customer", "terminal")]
    worker = await deployment.start(sweep_keys_per_s=1_000_000)
    await deployment.until(deployment.caught_up, "most of it is committed")
    # What is committed is told to the state with the next events.
    await deployment.publish(stream.records[-200:])

    async def gone() -> bool:
        return await deployment.caught_up() and not await deployment.client.exists(*names)

    await deployment.until(gone, "the idle keys have left")
    assert (await deployment.contents()).accepted, "they came, and were swept"
    assert "headrace_features_swept_logs_total 0.0" not in await worker.get("/metrics")
