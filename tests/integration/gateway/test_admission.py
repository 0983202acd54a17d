"""What a caller hears who asks for too much: from the gateway, and from gRPC before it."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from headrace.v1.prediction_service_pb2 import PredictRequest
from tests.integration.gateway.deployment import Deployment, event

pytestmark = pytest.mark.timeout(120)

BURST = 20


async def test_more_than_the_quota_and_more_calls_than_may_wait(deployment: Deployment) -> None:
    await deployment.route("000001")
    gateway = await deployment.start(
        GATEWAY_KAFKA_SCORER="false",
        GATEWAY_QUOTA_ROWS_PER_S="0.01",
        GATEWAY_QUOTA_BURST_ROWS=str(BURST),
        GATEWAY_GRPC_PENDING_CALLS="8",
    )
    ends: defaultdict[grpc.StatusCode, int] = defaultdict(int)
    delays_s: list[float] = []

    async def ask(number: int) -> None:
        try:
            await gateway.predictions.Predict(PredictRequest(event=event(f"e{number}")), timeout=30)
        except grpc.aio.AioRpcError as error:
            ends[error.code()] += 1
            if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                status = rpc_status.from_call(error)
                delay = error_details_pb2.RetryInfo()
                assert status.details[0].Unpack(delay)
                delays_s.append(delay.retry_delay.ToTimedelta().total_seconds())
        else:
            ends[grpc.StatusCode.OK] += 1

    for number in range(BURST):
        await ask(number)
    assert ends == {grpc.StatusCode.OK: BURST}
    await ask(BURST)
    # A row each 100 s.
    assert delays_s == [pytest.approx(100, abs=5)]
    await asyncio.gather(*(ask(1000 + number) for number in range(1000)))
    assert set(ends) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}
    assert ends[grpc.StatusCode.OK] == BURST
    assert sum(ends.values()) == BURST + 1 + 1000
    assert await gateway.stop() == 0
