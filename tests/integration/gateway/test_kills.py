"""kill -9 of the gateway under load: every answered call is in the log once, every vector is predicted once."""

from __future__ import annotations

import asyncio
import fcntl
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import grpc.aio
import pytest

from headrace.gateway.spool_directories import LOCK_FILE, spools_of
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_pb2 import ROLE_ANSWER, ROLE_REPEAT, Prediction
from headrace.v1.prediction_service_pb2 import PredictOptions, PredictRequest, PredictResponse
from headrace.v1.prediction_service_pb2_grpc import PredictionServiceStub
from tests.integration.gateway.callers import until_said
from tests.integration.gateway.deployment import Deployment, event, eventually, free_port

pytestmark = pytest.mark.timeout(240)

KILLS = 4
CALLERS = 16


def answers_of(predictions: Iterable[Prediction]) -> Counter[str]:
    return Counter(one.event_id for one in predictions if one.role == ROLE_ANSWER)


class Callers:
    """Clients that call again until they are answered, as clients do."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}",
            options=[("grpc.max_reconnect_backoff_ms", 200), ("grpc.initial_reconnect_backoff_ms", 50)],
        )
        self.stub = PredictionServiceStub(self.channel)
        self.answers: dict[str, PredictResponse] = {}
        self.stopped = False

    async def call(self, caller: int) -> None:
        number = 0
        while not self.stopped:
            event_id = f"call-{caller}-{number}"
            request = PredictRequest(
                event=event(event_id, customer=f"c{caller}", cents=100 + number), options=PredictOptions(ingest=True)
            )
            while event_id not in self.answers:
                try:
                    self.answers[event_id] = await self.stub.Predict(request, timeout=2)
                except grpc.aio.AioRpcError as error:
                    assert error.code() in {  # noqa: PT017 (anything else is a failed request)
                        grpc.StatusCode.UNAVAILABLE,
                        grpc.StatusCode.DEADLINE_EXCEEDED,
                        grpc.StatusCode.CANCELLED,
                    }, error
                    await asyncio.sleep(0.02)
            number += 1


async def test_nothing_is_lost_or_doubled(deployment: Deployment) -> None:
    await deployment.route("000001")
    port = str(free_port())
    gateway = await deployment.start(GATEWAY_GRPC_PORT=port)
    callers = Callers(int(port))
    vectors: list[str] = []

    async def send_vectors() -> None:
        while not callers.stopped:
            for partition in range(4):
                ids = [f"vector-{partition}-{deployment.vector_offsets[partition] + i}" for i in range(25)]
                await deployment.send_vectors(ids, partition=partition)
                vectors.extend(ids)
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as load:
        for caller in range(CALLERS):
            load.create_task(callers.call(caller))
        load.create_task(send_vectors())
        for kill in range(KILLS):
            before = len(callers.answers)

            async def more(before: int = before) -> bool:
                return len(callers.answers) > before + 50

            await eventually(more, "calls are answered")
            await asyncio.sleep(random.Random(kill).random() * 0.3)
            await gateway.kill()
            gateway = await deployment.start(GATEWAY_GRPC_PORT=port)
        callers.stopped = True
    expected = {*callers.answers, *vectors}

    async def all_logged() -> bool:
        return set(answers_of(await deployment.predictions())) >= expected

    await eventually(all_logged, "every answer is logged", 60, every_s=0.5)
    await gateway.stop()
    await callers.channel.close()
    predictions = await deployment.predictions()
    assert {event_id: n for event_id, n in answers_of(predictions).items() if n != 1} == {}
    logged = {one.event_id: one for one in predictions if one.role == ROLE_ANSWER}
    for event_id, answer in callers.answers.items():
        assert answer.score == logged[event_id].score
        if answer.role == ROLE_ANSWER:
            assert answer.prediction_id == logged[event_id].prediction_id
    ids = [one.prediction_id for one in predictions]
    assert len(ids) == len(set(ids))
    events = Counter(Event.FromString(one.value).event_id for one in await deployment.records(deployment.topics.events))
    assert {event_id: n for event_id, n in events.items() if n != 1} == {}
    assert set(events) == {event_id for event_id in logged if event_id.startswith("call-")}
    repeats = sum(answer.role == ROLE_REPEAT for answer in callers.answers.values())
    print(f"{len(callers.answers)} calls ({repeats} repeats), {len(vectors)} vectors, {KILLS} kills")  # noqa: T201


async def test_a_spool_that_another_process_ships_is_waited_for(deployment: Deployment) -> None:
    """As when one was killed, and its name is taken again while another looks after what it left."""
    await deployment.route("000001")
    spool = spools_of(Path(deployment.environment["HEADRACE_STATE_DIR"]), deployment.topics.deployed) / "0"
    spool.mkdir(parents=True)
    with (spool / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        gateway = await deployment.start(wait_ready=False, GATEWAY_KAFKA_SCORER=False)
        await until_said(gateway, "another process uses the spool")
    await gateway.ready()
    await gateway.predictions.Predict(PredictRequest(event=event("e1")), timeout=10)
    assert await gateway.stop() == 0
    assert len(await deployment.predictions()) == 1
