"""Callers of a gateway who call again as gRPC does by itself, and count what they get."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from headrace.platform.leases import Leases
from headrace.v1.prediction_pb2 import ROLE_ANSWER
from headrace.v1.prediction_service_pb2 import PredictRequest, PredictResponse
from headrace.v1.prediction_service_pb2_grpc import PredictionServiceStub
from tests.integration.gateway.deployment import Deployment, GatewayProcess, event, eventually

# What a call gets whose process is about to end or has ended. A call that comes in the moment between the end of the
# server and the notice of it to the client gets CANCELLED from gRPC itself.
LOST = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
RETRY = {
    "methodConfig": [
        {
            "name": [{"service": "headrace.v1.PredictionService", "method": "Predict"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": [code.name for code in LOST],
            },
        }
    ]
}


def channel(port: int) -> grpc.aio.Channel:
    """A connection of its own, which gRPC retries calls over by itself."""
    return grpc.aio.insecure_channel(
        f"127.0.0.1:{port}",
        options=[
            ("grpc.service_config", json.dumps(RETRY)),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.min_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
        ],
    )


class Load:
    """Callers of single calls and of streams, who count what they get."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers: dict[str, PredictResponse] = {}
        self.failures: list[str] = []
        self.stream_ends: Counter[grpc.StatusCode] = Counter()
        self.stopped = False

    async def call(self, caller: int) -> None:
        async with channel(self._port) as own:
            stub: Any = PredictionServiceStub(own)
            number = 0
            while not self.stopped:
                number += 1
                event_id = f"call-{caller}-{number}"
                try:
                    self.answers[event_id] = await stub.Predict(
                        PredictRequest(event=event(event_id, customer=f"c{caller}")), timeout=20, wait_for_ready=True
                    )
                except grpc.aio.AioRpcError as error:
                    self.failures.append(f"{event_id}: {error.code().name} {error.details()}")
                await asyncio.sleep(0.005)

    async def stream(self, caller: int) -> None:
        """Streams that are opened again when they end; what has no answer by then is sent again."""
        number = 0
        waiting: dict[str, PredictRequest] = {}

        async def requests() -> AsyncIterator[PredictRequest]:
            nonlocal number
            for again in list(waiting.values()):
                yield again
            while not self.stopped:
                number += 1
                event_id = f"stream-{caller}-{number}"
                waiting[event_id] = PredictRequest(event=event(event_id, customer=f"s{caller}"))
                yield waiting[event_id]
                await asyncio.sleep(0.01)

        async with channel(self._port) as own:
            stub: Any = PredictionServiceStub(own)
            while not self.stopped or waiting:
                stream = stub.StreamPredict(requests(), wait_for_ready=True)
                try:
                    async for answer in stream:
                        if answer.HasField("error"):
                            self.failures.append(f"{answer.event_id}: {answer.error.message}")
                        else:
                            self.answers[answer.event_id] = answer.prediction
                        waiting.pop(answer.event_id, None)
                except grpc.aio.AioRpcError as error:
                    self.stream_ends[error.code()] += 1
                    assert error.code() in LOST or was_writing(error), error  # noqa: PT017

    async def more(self, calls: int = 50) -> None:
        """Wait until that many more events have their answers."""
        before = len(self.answers)

        async def answered() -> bool:
            return len(self.answers) >= before + calls

        await eventually(answered, f"{calls} more answers")


def was_writing(error: grpc.aio.AioRpcError) -> bool:
    """Whether a stream ended while the client was writing to it: it then gets this in place of the status."""
    return error.code() == grpc.StatusCode.INTERNAL and "SendMessageOperation" in (error.debug_error_string() or "")


@asynccontextmanager
async def load(port: int) -> AsyncIterator[Load]:
    """Callers on connections of their own while the block runs."""
    made = Load(port)
    async with asyncio.TaskGroup() as callers:
        for caller in range(8):
            callers.create_task(made.call(caller))
        for caller in range(3):
            callers.create_task(made.stream(caller))
        try:
            await made.more()
            yield made
        finally:
            made.stopped = True


async def names(deployment: Deployment) -> dict[str, int]:
    """The processes that have a lease, and their epochs."""
    leases = await Leases(deployment.redis, deployment.topics.deployed).read()
    return {lease.instance: lease.epoch for lease in leases}


def said(gateway: GatewayProcess, event: str) -> list[dict[str, Any]]:
    """Lines of the log with this event."""
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def pids(gateway: GatewayProcess) -> dict[str, int]:
    """Process ids of the processes by their names, the last of each."""
    return {line["process"]: line["pid"] for line in said(gateway, "gateway process started")}


async def until_said(gateway: GatewayProcess, event: str) -> None:
    """Wait for a line of the log."""

    async def found() -> bool:
        return bool(said(gateway, event))

    await eventually(found, f"the gateway says {event!r}", 60)


async def all_logged_once(deployment: Deployment, answers: dict[str, PredictResponse]) -> None:
    async def logged() -> bool:
        return set(answers) <= {one.event_id for one in await deployment.predictions()}

    await eventually(logged, "every answer is logged", every_s=0.3)
    found = [one for one in await deployment.predictions() if one.role == ROLE_ANSWER]
    assert {key: n for key, n in Counter(one.event_id for one in found).items() if n != 1} == {}
    of_event = {one.event_id: one for one in found}
    assert {key: answer.score for key, answer in answers.items() if answer.score != of_event[key].score} == {}
