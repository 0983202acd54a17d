"""A refresh that gives no score for some requests: the gateway refuses them, and the version before comes back."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from headrace.v1 import route_pb2
from headrace.v1.prediction_service_pb2 import PredictRequest
from tests.integration.gateway.deployment import GatewayProcess, event, free_port
from tests.integration.rollout.deployment import FEATURES, Deployment, running
from tests.integration.rollout.test_versions_into_traffic import replace

pytestmark = pytest.mark.timeout(180)

MOST = 1000


def model_without_scores_above(amount: float, weight: float) -> bytes:
    """A logistic model whose weights are all the same, and that gives NaN where the first feature is larger."""
    first = np.zeros((FEATURES, 1), np.float32)
    first[0] = 1
    constants = {
        "weights": np.full((FEATURES, 1), weight, np.float32),
        "first": first,
        "most": np.array(amount, np.float32),
        "nothing": np.array(0, np.float32),
    }
    nodes = [
        ("MatMul", ["features", "weights"], "sum"),
        ("MatMul", ["features", "first"], "amount"),
        ("Sub", ["most", "amount"], "left"),
        ("Sqrt", ["left"], "root"),
        ("Mul", ["root", "nothing"], "zero"),
        ("Add", ["sum", "zero"], "logit"),
        ("Sigmoid", ["logit"], "score"),
    ]
    graph = helper.make_graph(
        [helper.make_node(operation, inputs, [output]) for operation, inputs, output in nodes],
        "without_scores",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.fixture
async def gateway(deployment: Deployment, tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    """A gateway process of the deployment; not ready before there are routes."""
    port, ops_port = free_port(), free_port()
    environment = deployment.environment() | {
        "HEADRACE_GATEWAY_GRPC_PORT": str(port),
        "HEADRACE_GATEWAY_OPS_PORT": str(ops_port),
        "HEADRACE_GATEWAY_REDIS_TIMEOUT_MS": "3000",
        "HEADRACE_GATEWAY_TRITON_TIMEOUT_MS": "5000",
    }
    environment.pop("HEADRACE_OPS_PORT", None)
    log = tmp_path / "gateway.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headrace.cli", "run", "gateway", env=environment, stdout=output, stderr=output
        )
    started = GatewayProcess(process, port, ops_port, log)
    yield started
    assert await started.stop() == 0, os.linesep.join(log.read_text().splitlines()[-20:])


async def test_what_a_refresh_cannot_score_puts_the_version_before_back(
    deployment: Deployment, gateway: GatewayProcess
) -> None:
    large = PredictRequest(event=event("large", cents=100 * MOST * 2))
    async with running(deployment):
        await deployment.announce(deployment.version(0, weight=0.0001))
        await deployment.routed("000000", adopted=True, seconds=60)
        await gateway.ready()
        refresh = deployment.version(1, weight=0.0002)
        replace(refresh, deployment, model_without_scores_above(MOST, 0.0002))
        await deployment.announce(refresh)
        await deployment.routed("000001", adopted=True, seconds=60)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await gateway.predictions.Predict(large, timeout=30)
        assert refused.value.code() is grpc.StatusCode.INTERNAL
        table = await deployment.routed("000000", adopted=True, seconds=60)
        change = table.changes[-1]
        assert (change.kind, change.version) == (route_pb2.ROUTE_CHANGE_KIND_GUARD_RAIL, "000000")
        assert change.detail == (
            "finite_scores: version 000001 gives no finite score for 1 recent rows that 000000 scores"
        )
        alert = await deployment.alerted("000001")
        assert alert.detail == change.detail
        answer = await gateway.predictions.Predict(large, timeout=30)
        assert answer.model_version == "000000"


async def test_what_neither_version_scores_is_not_the_fault_of_the_newer(deployment: Deployment) -> None:
    rows = {"000001": [[float("nan")] * FEATURES]}
    async with running(deployment):
        for number in range(2):
            await deployment.announce(deployment.version(number, weight=0.0001))
            await deployment.routed(f"{number:06d}")
        for number in range(2, 4):
            # The lease of one that cannot score is read before the next version is adopted.
            await deployment.leases.renew("one", deployment.routes[-1].epoch, [], rows)
            await deployment.routed(f"{number - 1:06d}", adopted=True)
            await deployment.announce(deployment.version(number, weight=0.0001))
            await deployment.routed(f"{number:06d}")
    kinds = {change.kind for table in deployment.routes for change in table.changes}
    assert kinds == {route_pb2.ROUTE_CHANGE_KIND_REFRESH}
