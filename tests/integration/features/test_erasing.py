"""Erasing a person while workers run: nothing of what came before is left in a state, or comes back."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from headrace.features.accepted_events import AcceptedEvent, AcceptedEvents
from headrace.features.erasing import Erased, erase, erase_answers
from headrace.features.erasures import Erasures
from headrace.features.errors import ErasedMeanwhileError
from headrace.features.event_merging import EventMerger, PartitionProgress
from headrace.features.outcome_merging import OutcomeMerger
from headrace.features.state_writer import StateWriter
from headrace.features.stored_states import DEFINITION
from headrace.features.time_guard import TimeGuard
from headrace.pipeline.state import compile_plan
from headrace.platform.event_codec import CheckedEvent
from headrace.platform.feature_state import FeatureStateReader, StateKeys
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis_connection import RedisConnections
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_pb2 import Prediction
from tests.integration.features.deployment import Deployment
from tests.integration.features.payments import START, Payments, outcome

plan = compile_plan(load_pipeline("pipelines/fraud.py"))
NOW = 1_900_000_000_000_000
"""Later than any erasure of this test."""


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture
async def connections(redis_url: str) -> AsyncIterator[RedisConnections]:
    made = RedisConnections(redis_url)
    yield made
    await made.aclose()


def payments(first: int, produced_us: int) -> AcceptedEvents:
    """Two payments at one terminal, the first one of the person."""
    events = [
        CheckedEvent(f"e{first + at}", START + first + at, [customer, "t"], [100.0], False)
        for at, customer in enumerate(("person", "other"))
    ]
    return AcceptedEvents.of(
        plan.pipeline,
        [
            AcceptedEvent(first + at, produced_us, None, event, TimeGuard(event.time_us))
            for at, event in enumerate(events)
        ],
    )


async def test_what_was_read_before_an_erasure_is_not_written_after_it(
    client: Redis, connections: RedisConnections, namespace: str
) -> None:
    reader = FeatureStateReader(connections, plan, namespace)
    erasures = Erasures(connections, reader.keys)
    writer = StateWriter(connections, reader.keys, 3600, erasures)
    worker = EventMerger(plan, reader, writer, 100, erasures)
    worker.progress[0] = PartitionProgress()
    labels = OutcomeMerger(plan, reader.keys, writer, erasures=erasures)
    await worker.merge([(0, payments(0, 1))])
    log, size = reader.keys.event_log("customer") + "person", plan.entities[0].event_record.itemsize
    assert await client.strlen(log) == size
    append = writer.append

    async def late(*arguments: object) -> object:
        assert await erase(client, namespace, "customer", "person") == Erased(1, 1, size)
        return await append(*arguments)  # type: ignore[arg-type]

    writer.append = late  # type: ignore[method-assign,assignment]
    with pytest.raises(ErasedMeanwhileError):
        await worker.merge([(0, payments(2, 1))])
    writer.append = append  # type: ignore[method-assign]
    assert not await client.exists(log)
    evaluated = await worker.merge([(0, payments(2, 1))])
    assert not await client.exists(log), "it was produced before the erasure"
    assert await client.strlen(reader.keys.event_log("terminal") + "t") == 4 * plan.entities[1].event_record.itemsize
    assert evaluated.values[:, plan.pipeline.feature_names.index("customer_count_30d")].tolist() == [1, 2]
    await worker.merge([(0, payments(4, NOW))])
    assert await client.strlen(log) == size, "what comes later begins a new history"
    assert await erase(client, namespace, "terminal", "t") == Erased(1, 1, 6 * plan.entities[1].event_record.itemsize)
    old = outcome(Event(event_id="e0", event_time_us=START, texts=["person", "t"]), fraud=True)
    old.prediction.received_time_us = 1
    new = outcome(Event(event_id="e4", event_time_us=START + 4, texts=["person", "t"]), fraud=True)
    new.prediction.received_time_us = NOW
    await labels.merge(0, [(0, 1, old), (1, 1, new)], 1)
    stored: Any = await client.get(reader.keys.label_log("terminal") + "t")
    assert np.frombuffer(stored, np.int64)[0] == START + 4
    assert len(stored) == 32
    for event_id, customer in (("e0", "person"), ("e1", "other")):
        answer = Prediction(event_id=event_id, entities=[customer, "t"])
        await client.set(f"headrace:{{{namespace}}}:answer:{event_id}", answer.SerializeToString())
    assert await erase_answers(client, namespace, 0, "person") == 1
    assert await client.exists(f"headrace:{{{namespace}}}:answer:e1")
    kept: Any = await client.hkeys(reader.keys.erased)
    assert b"person" not in b"".join(kept)


@pytest.mark.timeout(300)
async def test_an_erased_person_stays_away_through_a_reset(deployment: Deployment) -> None:
    stream = Payments(deployment.plan.pipeline, 3000, seed=41)
    half = len(stream.records) // 2
    await deployment.publish(stream.records[:half])
    await deployment.publish_outcomes(stream.outcomes())
    worker = await deployment.start()
    await deployment.until(deployment.caught_up, "the first half is committed")
    person = stream.events[0].texts[0]
    other = StateKeys(deployment.topics.deployed, 7)
    await deployment.client.hset(other.sources, DEFINITION, "former")
    await deployment.client.set(other.event_log("customer") + person, b"kept by another definition")
    log = deployment.keys.event_log("customer") + person
    assert await deployment.client.exists(log)
    status, said = await deployment.command("erase", "customer", person)
    assert status == 130, "nobody confirmed it"
    status, said = await deployment.command("erase", "customer", person, "--yes")
    assert status == 0, said
    assert f"2 logs of customer {person} erased" in said
    assert "Not reached: " in said
    assert not await deployment.client.exists(log, other.event_log("customer") + person)
    await deployment.publish(stream.records[half:])
    await deployment.until(deployment.caught_up, "the second half is committed")
    after: Any = await deployment.client.get(log)
    assert after
    others = await customers(deployment, person)
    worker.send(signal.SIGTERM)
    assert await worker.wait() == 0
    assert (await deployment.command("features", "reset", "--yes"))[0] == 0
    await worker.start()
    await deployment.until(deployment.caught_up, "all of it is merged again")
    again: Any = await deployment.client.get(log)
    assert sorted(records(deployment, again)) == sorted(records(deployment, after)), "only what came after the erasure"
    assert await customers(deployment, person) == others
    await deployment.client.unlink(other.sources, deployment.keys.erased)
    status, said = await deployment.command("erase", "client", person, "--yes")
    assert (status, said) == (2, "error: 'client' is not an entity of fraud; declared are customer, terminal\n")


async def customers(deployment: Deployment, without: str) -> dict[str, list[Any]]:
    """What the logs of all other customers hold."""
    prefix = deployment.keys.event_log("customer")
    names = [name.decode() async for name in deployment.client.scan_iter(f"{prefix}*", 1000)]
    found: list[Any] = await deployment.client.mget(names)
    return {
        name: sorted(records(deployment, value))
        for name, value in zip(names, found, strict=True)
        if name != prefix + without
    }


def records(deployment: Deployment, value: bytes) -> list[Any]:
    """The records of an event log."""
    found = np.frombuffer(value, deployment.plan.entities[0].event_record)
    kept: list[Any] = found[found["time"] >= 0].tolist()
    return kept
