"""Several gateway processes on one port: replaced, killed and counted, with callers who notice none of it."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from headrace.v1.prediction_service_pb2 import PredictRequest, PredictResponse
from headrace.v1.prediction_service_pb2_grpc import PredictionServiceStub
from tests.integration.gateway.callers import all_logged_once, channel, load, names, pids, until_said
from tests.integration.gateway.deployment import Deployment, GatewayProcess, event, eventually

pytestmark = [pytest.mark.timeout(120), pytest.mark.faults]


async def test_processes_are_replaced_and_killed_under_load(deployment: Deployment) -> None:
    await deployment.route("000001")
    gateway = await deployment.start(GATEWAY_PROCESSES=2, GATEWAY_KAFKA_SCORER=False)
    assert set(await names(deployment)) == {"0-0", "0-1"}
    async with load(gateway.port) as callers:
        gateway.process.send_signal(signal.SIGHUP)
        await until_said(gateway, "gateway processes replaced")
        assert callers.failures == []
        assert not {"0-0", "0-1"} <= set(await names(deployment))
        await callers.more()
        replaced, ended = len(callers.answers), callers.stream_ends.copy()
        assert (await gateway.readiness())["ready"]

        victim = pids(gateway)["0-2"]
        os.kill(victim, signal.SIGKILL)
        await until_said(gateway, "gateway process ended")
        await callers.more()

        async def comes_back() -> bool:
            return pids(gateway)["0-2"] != victim and bool((await gateway.readiness())["ready"])

        await eventually(comes_back, "the killed process is back")
        await callers.more()
        assert callers.failures == []
    began = time.monotonic()
    assert await gateway.stop() == 0
    stopped_s = time.monotonic() - began
    await all_logged_once(deployment, callers.answers)
    assert await names(deployment) == {}
    print(  # noqa: T201
        f"{replaced} answers by the end of the rolling restart (streams ended {dict(ended)}), "
        f"{len(callers.answers)} in all (streams ended {dict(callers.stream_ends)}), stopped in {stopped_s:.1f} s"
    )


async def _is_told_of_the_end(gateway: GatewayProcess) -> None:
    """A stream that was answered, and who watches health, end with a status that says why."""
    serving = health_pb2.HealthCheckResponse.SERVING
    watch: Any = HealthStub(gateway.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == serving
    stream = gateway.predictions.StreamPredict()
    await stream.write(PredictRequest(event=event("before-the-end")))
    assert (await stream.read()).event_id == "before-the-end"
    gateway.process.send_signal(signal.SIGTERM)
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    for open_call in (watch, stream):
        with pytest.raises(grpc.aio.AioRpcError, match="stopping") as ended:
            await open_call.read()
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
    assert await gateway.stop() == 0


async def _is_not_ready(gateway: GatewayProcess) -> bool:
    readiness = await gateway.readiness()
    reasons = [one.get("reason", "") for one in readiness["components"].values()]
    return not readiness["ready"] and "0-1: does not answer" in reasons


async def test_a_spool_outlives_a_change_of_the_number_of_processes(deployment: Deployment) -> None:
    await deployment.route("000001")
    # Nothing is shipped before the kill.
    gateway = await deployment.start(GATEWAY_PROCESSES=2, GATEWAY_SPOOL_SHIP_MS=10_000, GATEWAY_KAFKA_SCORER=False)
    answers: dict[str, PredictResponse] = {}
    for number in range(12):
        async with channel(gateway.port) as own:
            stub: Any = PredictionServiceStub(own)
            answers[f"call-{number}"] = await stub.Predict(PredictRequest(event=event(f"call-{number}")), timeout=20)
    for pid in pids(gateway).values():
        os.kill(pid, signal.SIGSTOP)
    await eventually(lambda: _is_not_ready(gateway), "processes that do not answer are noticed")
    for pid in [gateway.process.pid, *pids(gateway).values()]:
        os.kill(pid, signal.SIGKILL)
    await gateway.process.wait()
    assert await deployment.predictions() == []
    single = await deployment.start(GATEWAY_SPOOL_ADOPT_AFTER_S=0, GATEWAY_KAFKA_SCORER=False)
    await all_logged_once(deployment, answers)
    await _is_told_of_the_end(single)
