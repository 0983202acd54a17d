"""The gateway while Kafka, Redis and Triton are killed under it, on a stack of its own: no call fails, none is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.local import Layout, Stack
from headrace.platform.kafka import KafkaUnavailable
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_pb2 import ROLE_ANSWER, Prediction
from headrace.v1.prediction_service_pb2 import PredictOptions, PredictRequest, PredictResponse
from tests.integration.gateway.deployment import Deployment, GatewayProcess, deploy, event, eventually
from tests.integration.test_local_stack import free_ports

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    directory = Path(tempfile.mkdtemp(prefix="private-stack-"))
    stack = Stack(Layout(run=directory / "local", keys=directory / "keys"), free_ports())
    try:
        stack.start_infrastructure()
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(directory)


@pytest.fixture
async def deployment(private: Stack, namespace: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    ports = private.ports
    redis_url = f"redis://127.0.0.1:{ports.redis}/0"
    async with deploy(
        f"127.0.0.1:{ports.kafka}", redis_url, f"127.0.0.1:{ports.triton_grpc}", namespace, tmp_path
    ) as d:
        yield d


class Load:
    """Calls and vectors, one after the other, each sent once."""

    def __init__(self, deployment: Deployment, gateway: GatewayProcess) -> None:
        self.deployment = deployment
        self.gateway = gateway
        self.answers: dict[str, PredictResponse] = {}
        self.vectors: list[str] = []
        self.stopped = False

    async def call(self, caller: int) -> None:
        number = 0
        while not self.stopped:
            event_id = f"call-{caller}-{number}"
            request = PredictRequest(
                event=event(event_id, customer=f"c{caller}", cents=100), options=PredictOptions(ingest=True)
            )
            self.answers[event_id] = await self.gateway.predictions.Predict(request, timeout=10)
            number += 1
            await asyncio.sleep(0.02)

    async def send_vectors(self) -> None:
        while not self.stopped:
            for partition in range(4):
                ids = [f"vector-{partition}-{self.deployment.vector_offsets[partition] + i}" for i in range(10)]
                await self.deployment.send_vectors(ids, partition=partition)
                self.vectors.extend(ids)
            await asyncio.sleep(0.05)

    async def more(self, calls: int, vectors: int) -> None:
        """Wait for more of both."""
        before, sent = len(self.answers), len(self.vectors)

        async def enough() -> bool:
            return len(self.answers) >= before + calls and len(self.vectors) >= sent + vectors

        await eventually(enough, "calls are answered and vectors sent", 60)


async def until_replaced(private: Stack, name: str) -> None:
    killed = private.process_id(name)
    os.kill(killed, signal.SIGKILL)

    async def replaced() -> bool:
        lines = await asyncio.to_thread(private.status)
        return any(line.name == name and line.ready and line.process_id != killed for line in lines)

    await eventually(replaced, f"{name} is back", 60, every_s=0.2)


@pytest.mark.parametrize("killed", ["kafka", "redis", "triton"])
async def test_what_is_killed_comes_back_and_no_call_fails(deployment: Deployment, private: Stack, killed: str) -> None:
    await deployment.route("000001")
    gateway = await deployment.start(GATEWAY_REDIS_TIMEOUT_MS=200, GATEWAY_TRITON_TIMEOUT_MS=1000)
    load = Load(deployment, gateway)
    async with asyncio.TaskGroup() as tasks:
        for caller in range(4):
            tasks.create_task(load.call(caller))
        tasks.create_task(load.send_vectors())
        await load.more(50, 100)
        await until_replaced(private, killed)
        await load.more(50, 100)
        load.stopped = True
    expected = Counter([*load.answers, *load.vectors])
    found: list[Prediction] = []

    async def all_logged() -> bool:
        try:
            found[:] = await deployment.predictions()
        except KafkaUnavailable:
            return False
        return len({one.event_id for one in found}) >= len(expected)

    await eventually(all_logged, "every answer is logged", 60, every_s=0.5)
    assert gateway.process.returncode is None
    assert await gateway.stop() == 0
    found = await deployment.predictions()
    assert Counter(one.event_id for one in found if one.role == ROLE_ANSWER) == expected
    assert len(found) == len(expected)
    records = await deployment.records(deployment.topics.events)
    assert Counter(Event.FromString(one.value).event_id for one in records) == Counter(load.answers.keys())
    degraded = sum(bool(answer.degradations) for answer in load.answers.values())
    assert (degraded > 0) == (killed != "kafka")
    if killed == "triton":
        deployment.loaded.clear()
