"""No request fails because Triton or Redis is away, and every answer says what was missing."""

from __future__ import annotations

import time

import grpc
import grpc.aio
import pytest

from headrace.v1.prediction_pb2 import (
    DEGRADATION_FEATURES_DEFAULTED,
    DEGRADATION_IDEMPOTENCY_LOCAL,
    DEGRADATION_MODEL_IN_PROCESS,
    ROLE_REPEAT,
)
from headrace.v1.prediction_service_pb2 import GetFeaturesRequest, PredictOptions, PredictRequest
from tests.integration.gateway.deployment import Deployment, event, free_port, score_of

pytestmark = pytest.mark.timeout(120)


async def test_without_triton_the_champion_runs_in_the_gateway(deployment: Deployment) -> None:
    await deployment.route("000001", 0.5, load=False)
    gateway = await deployment.start(TRITON_URLS=f"127.0.0.1:{free_port()}")
    began = time.monotonic()
    for i in range(50):
        answer = await gateway.predictions.Predict(PredictRequest(event=event(f"e{i}", cents=i)), timeout=5)
        assert answer.score == pytest.approx(score_of(i, 0.5), abs=1e-6)
        assert list(answer.degradations) == [DEGRADATION_MODEL_IN_PROCESS]
    # Each with a timeout of Triton's would take 25 s.
    assert time.monotonic() - began < 15
    await deployment.send_vectors([f"k{i}" for i in range(100)])
    logged = await deployment.predicted(150)
    assert all(list(one.degradations) == [DEGRADATION_MODEL_IN_PROCESS] for one in logged)
    readiness = await gateway.readiness()
    assert readiness["ready"], readiness
    assert await gateway.metric("headrace_gateway_triton_away_ratio") == 1.0
    assert await gateway.stop() == 0


async def test_a_version_that_triton_lost_runs_in_the_gateway(deployment: Deployment) -> None:
    await deployment.route("000001", 0.5)
    gateway = await deployment.start()
    first = await gateway.predictions.Predict(PredictRequest(event=event("e1")), timeout=5)
    assert list(first.degradations) == []
    await deployment.triton.unload_model(deployment.loaded[0])
    answer = await gateway.predictions.Predict(PredictRequest(event=event("e2")), timeout=5)
    assert list(answer.degradations) == [DEGRADATION_MODEL_IN_PROCESS]
    assert answer.score == pytest.approx(first.score, abs=1e-6)
    # A version that Triton has takes over without a failed request.
    await deployment.route("000002", 0.9)
    found = ""
    number = 0
    deadline = time.monotonic() + 10
    while found != "000002":
        assert time.monotonic() < deadline
        number += 1
        answer = await gateway.predictions.Predict(PredictRequest(event=event(f"n{number}")), timeout=5)
        found = answer.model_version
    assert list(answer.degradations) == []


async def test_a_model_that_is_not_signed_is_not_run(deployment: Deployment) -> None:
    routed = await deployment.route("000001", 0.5, load=False)
    routed.model.onnx.signature = bytes(64)
    await deployment.publish(routed)
    gateway = await deployment.start(TRITON_URLS=f"127.0.0.1:{free_port()}")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.predictions.Predict(PredictRequest(event=event("e1")), timeout=5)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "signature" in str(caught.value.details())


async def test_without_redis_features_are_their_defaults(deployment: Deployment) -> None:
    await deployment.route("000001", 0.5)
    gateway = await deployment.start(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    request = PredictRequest(event=event("e1", cents=700), options=PredictOptions(ingest=True))
    answer = await gateway.predictions.Predict(request, timeout=5)
    assert sorted(answer.degradations) == [DEGRADATION_FEATURES_DEFAULTED, DEGRADATION_IDEMPOTENCY_LOCAL]
    assert answer.score == pytest.approx(score_of(700, 0.5), abs=1e-6)
    assert answer.features_age_ms == -1
    again = await gateway.predictions.Predict(request, timeout=5)
    assert (again.role, again.prediction_id != answer.prediction_id) == (ROLE_REPEAT, True)
    features = await gateway.features.GetFeatures(GetFeaturesRequest(event=event("e9")), timeout=5)
    assert list(features.degradations) == [DEGRADATION_FEATURES_DEFAULTED]
    await deployment.send_vectors(["k1", "e1"])
    logged = {one.prediction_id: one for one in await deployment.predicted(4)}
    assert list(logged["k-0-0"].degradations) == [DEGRADATION_IDEMPOTENCY_LOCAL]
    assert logged["k-0-1"].role == ROLE_REPEAT
    assert len(await deployment.records(deployment.topics.events)) == 1
    assert await gateway.stop() == 0
