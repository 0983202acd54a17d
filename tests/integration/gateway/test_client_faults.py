"""The client while its gateway is killed and comes back: every event has one answer, and one record."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator

import pytest

from headrace.client import AsyncPredictionClient, Connection, EventInput
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_pb2 import ROLE_ANSWER
from tests.integration.gateway.deployment import START_US, Deployment, free_port

pytestmark = pytest.mark.timeout(120)

AFTER = 100


def payment(event_id: str) -> EventInput:
    return EventInput(event_id, START_US, {"customer_id": "c1", "terminal_id": "t1", "amount_cents": 1000})


async def test_every_event_is_answered_once_though_the_gateway_is_killed(deployment: Deployment) -> None:
    await deployment.route("000001")
    port = free_port()
    gateway = await deployment.start(GATEWAY_GRPC_PORT=port)
    restarted = asyncio.Event()
    under_way = asyncio.Event()
    answers: defaultdict[str, list[str]] = defaultdict(list)

    async def payments() -> AsyncIterator[EventInput]:
        number, left = 0, AFTER
        while left:
            left -= restarted.is_set()
            yield payment(f"s{number}")
            number += 1

    async def stream(client: AsyncPredictionClient) -> None:
        async for one in client.stream_predict(payments(), max_in_flight=32):
            assert one.HasField("prediction"), one
            answers[one.event_id].append(one.prediction.prediction_id)
            if len(answers) == AFTER:
                under_way.set()

    async def calls(client: AsyncPredictionClient, name: str) -> None:
        number, left = 0, AFTER // 4
        while left:
            left -= restarted.is_set()
            one = await client.predict(payment(f"{name}-{number}"), ingest=True)
            answers[one.event_id].append(one.prediction_id)
            number += 1

    async def restart() -> None:
        await under_way.wait()
        await gateway.kill()
        await deployment.start(GATEWAY_GRPC_PORT=port)
        restarted.set()

    connection = Connection(f"127.0.0.1:{port}", wait_for_ready=True)
    async with AsyncPredictionClient(connection, timeout_s=40) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(stream(client))
        for i in range(2):
            tasks.create_task(calls(client, f"u{i}"))
        tasks.create_task(restart())

    assert len(answers) > 2 * AFTER
    # A call that was answered by the process that died, and sent again, has the first answer again.
    assert set(map(len, answers.values())) == {1}
    logged = await deployment.predicted(len(answers))
    assert {ids[0] for ids in answers.values()} <= {one.prediction_id for one in logged}
    assert Counter(one.event_id for one in logged if one.role == ROLE_ANSWER) == Counter(answers.keys())
    ingested = [Event.FromString(one.value) for one in await deployment.records(deployment.topics.events)]
    assert Counter(one.event_id for one in ingested) == Counter(one for one in answers if one.startswith("u"))
