"""What gRPC's service config makes of a gateway that refuses, ends or is away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from headrace.client import AsyncPredictionClient, CallError, Connection, Deadline, EventInput, PredictionClient, Retry
from headrace.client.service_config import service_config
from headrace.gateway.errors import GatewayError, NotServingError, OverloadedError
from headrace.gateway.grpc_errors import status_of
from headrace.v1.prediction_service_pb2 import (
    PredictBatchRequest,
    PredictBatchResponse,
    PredictRequest,
    PredictResponse,
)
from headrace.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)

Context = grpc.aio.ServicerContext[Any, Any]
EVENT = EventInput("e1", 1, {"amount": 1})


class Refusing(PredictionServiceServicer):
    """Refuses the first calls as the gateway does."""

    def __init__(self, *failures: GatewayError) -> None:
        self.failures = list(failures)
        self.times: list[float] = []
        self.metadata: list[dict[str, str | bytes]] = []

    async def Predict(self, request: PredictRequest, context: Context) -> PredictResponse:  # noqa: N802 (the contract)
        await self._refuse(context)
        return PredictResponse(event_id=request.event.event_id, score=0.5)

    async def PredictBatch(self, request: PredictBatchRequest, context: Context) -> PredictBatchResponse:  # noqa: N802
        await self._refuse(context)
        return PredictBatchResponse(event_ids=request.event_ids)

    async def _refuse(self, context: Context) -> None:
        self.times.append(time.monotonic())
        self.metadata.append({str(key): value for key, value in context.invocation_metadata() or ()})
        if self.failures:
            status = status_of(self.failures.pop(0))
            await context.abort(status.code, status.message, status.trailing_metadata())


@asynccontextmanager
async def refusing(*failures: GatewayError) -> AsyncIterator[tuple[Refusing, str]]:
    server = grpc.aio.server()
    servicer = Refusing(*failures)  # type: ignore[abstract]
    add_PredictionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def by_threads(connection: Connection, **asked: Any) -> PredictResponse:
    def use() -> PredictResponse:
        with PredictionClient(connection) as client:
            return client.predict(EVENT, **asked)

    return await asyncio.to_thread(use)


async def by_tasks(connection: Connection, **asked: Any) -> PredictResponse:
    async with AsyncPredictionClient(connection) as client:
        return await client.predict(EVENT, **asked)


Predict = Callable[..., Awaitable[PredictResponse]]
both = pytest.mark.parametrize("predict", [by_threads, by_tasks])


@both
async def test_a_refused_call_comes_back_when_the_gateway_says(predict: Predict) -> None:
    async with refusing(OverloadedError("full", 0.3), OverloadedError("full", 0.2)) as (server, target):
        answer = await predict(Connection(target))
    assert answer.score == 0.5
    first, second, third = server.times
    # The back-off alone would be 0.05 and 0.1 s at the most.
    assert second - first >= 0.29
    assert third - second >= 0.19
    assert [one.get("grpc-previous-rpc-attempts") for one in server.metadata] == [None, "1", "2"]


@both
async def test_a_gateway_that_is_not_serving_is_asked_again(predict: Predict) -> None:
    async with refusing(NotServingError("no route table yet"), NotServingError("no route table yet")) as (
        server,
        target,
    ):
        assert (await predict(Connection(target))).score == 0.5
    assert len(server.times) == 3


@both
async def test_without_retries_the_first_error_is_the_answer(predict: Predict) -> None:
    async with refusing(OverloadedError("full", 0.3)) as (server, target):
        with pytest.raises(CallError) as caught:
            await predict(Connection(target, retry=None))
    assert caught.value.retry_after_s == 0.3
    assert caught.value.retriable
    assert len(server.times) == 1


@both
async def test_no_retry_goes_beyond_the_deadline(predict: Predict) -> None:
    deadline = Deadline.after(0.3)
    async with refusing(*[OverloadedError("full", 0.2)] * 5) as (server, target):
        with pytest.raises(CallError) as caught:
            await predict(Connection(target), deadline=deadline)
        assert caught.value.code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
        assert deadline.remaining() == 0.0 or len(server.times) == 2
        made = len(server.times)
        with pytest.raises(CallError, match="before the call was made"):
            await predict(Connection(target), deadline=Deadline.after(-1))
        assert len(server.times) == made


async def test_a_batch_that_is_large_is_retried_too() -> None:
    count = 4096
    ids = [f"event-{i:060}" for i in range(count)]
    async with (
        refusing(OverloadedError("full", 0.01)) as (server, target),
        AsyncPredictionClient(target) as client,
    ):
        answer = await client.predict_batch(ids, [1] * count, {"amount": [1.0] * count})
    assert len(answer.event_ids) == count
    assert len(server.times) == 2


async def test_a_call_waits_for_a_gateway_where_it_is_asked_to() -> None:
    async with refusing() as (_, target):
        pass
    async with AsyncPredictionClient(Connection(target, wait_for_ready=True)) as client:
        waiting = asyncio.create_task(client.predict(EVENT))
        server = grpc.aio.server()
        add_PredictionServiceServicer_to_server(Refusing(), server)  # type: ignore[abstract]
        assert not waiting.done()
        server.add_insecure_port(target)
        await server.start()
        assert (await waiting).score == 0.5
        await server.stop(None)


def test_the_service_config_is_what_grpc_reads() -> None:
    config = json.loads(service_config(Retry(), wait_for_ready=True, balance=True))
    unary, stream = config["methodConfig"]
    assert {one["method"] for one in unary["name"]} == {"Predict", "PredictBatch", "GetFeatures", "DescribePipeline"}
    assert unary["retryPolicy"]["initialBackoff"] == "0.05s"
    assert "retryPolicy" not in stream
    assert config["healthCheckConfig"] == {"serviceName": "headrace.v1.PredictionService"}
    assert "loadBalancingConfig" not in json.loads(service_config(Retry(), wait_for_ready=False, balance=False))


@pytest.mark.parametrize(
    "wrong", [{"max_attempts": 6}, {"max_attempts": 1}, {"initial_backoff_s": 0}, {"throttle_tokens": 0}]
)
def test_a_policy_that_grpc_would_refuse_is_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"allowed|above"):
        Retry(**wrong)
