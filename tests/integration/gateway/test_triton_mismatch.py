"""A server with another model under a routed name: never scored by it, answered in this process, and counted."""

from __future__ import annotations

import pytest

from headrace.platform.triton_config import MODEL_FILE, FeatureIdentity, triton_model_config
from headrace.v1.prediction_pb2 import DEGRADATION_MODEL_IN_PROCESS
from headrace.v1.prediction_service_pb2 import PredictRequest
from tests.integration.gateway.deployment import Deployment, event, eventually, model_file, pipeline, score_of


async def test_a_model_of_other_features_is_not_asked_and_the_answer_is_right(deployment: Deployment) -> None:
    other = FeatureIdentity.of(pipeline.feature_names[::-1], pipeline.features_fingerprint)
    name = f"{deployment.topics.deployed}-000001"
    await deployment.triton.load_model(
        name, config=triton_model_config(name, other), files={MODEL_FILE: model_file(-3.0)}
    )
    deployment.loaded.append(name)
    await deployment.route("000001", 1.0, load=False)
    gateway = await deployment.start()
    answer = await gateway.predictions.Predict(PredictRequest(event=event("e1", cents=1000)), timeout=10)
    assert answer.score == pytest.approx(score_of(1000, 1.0), abs=1e-6)
    assert DEGRADATION_MODEL_IN_PROCESS in answer.degradations
    assert await gateway.metric("headrace_gateway_triton_mismatched_versions") == 1
    assert gateway.log.read_text().count("another model under this name") == 1
    # The right one in its place takes over by itself.
    right = FeatureIdentity.of(pipeline.feature_names, pipeline.features_fingerprint)
    await deployment.triton.load_model(
        name, config=triton_model_config(name, right), files={MODEL_FILE: model_file(1.0)}
    )
    asked = 0

    async def from_triton() -> bool:
        nonlocal asked
        asked += 1
        again = PredictRequest(event=event(f"later-{asked}", cents=1000))
        answer = await gateway.predictions.Predict(again, timeout=10)
        assert answer.score == pytest.approx(score_of(1000, 1.0), abs=1e-6)
        return not answer.degradations

    await eventually(from_triton, "Triton answers")
    assert await gateway.metric("headrace_gateway_triton_mismatched_versions") == 0
