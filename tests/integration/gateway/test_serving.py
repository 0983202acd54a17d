"""Calls and vectors through a gateway process, with real Kafka, Redis and Triton."""

from __future__ import annotations

import pytest

from headrace.v1.prediction_pb2 import CHANNEL_KAFKA, CHANNEL_UNARY, ROLE_ANSWER, ROLE_REPEAT, ROUTE_CHAMPION
from headrace.v1.prediction_service_pb2 import PredictOptions, PredictRequest
from tests.integration.gateway.deployment import Deployment, event, pipeline, score_of

pytestmark = pytest.mark.timeout(120)


async def test_a_call_is_answered_and_logged(deployment: Deployment) -> None:
    await deployment.route("000001", 0.5)
    gateway = await deployment.start()
    answer = await gateway.predictions.Predict(
        PredictRequest(event=event("e1", cents=5000), options=PredictOptions(explain=True)), timeout=5
    )
    assert answer.event_id == "e1"
    assert answer.score == pytest.approx(score_of(5000, 0.5), abs=1e-6)
    assert (answer.decision, answer.model_version, answer.route) == ("review", "000001", ROUTE_CHAMPION)
    assert answer.role == ROLE_ANSWER
    assert list(answer.degradations) == []
    assert answer.features_age_ms == -1
    assert list(answer.feature_names) == list(pipeline.feature_names)
    assert answer.features[0] == 50.0
    again = await gateway.predictions.Predict(PredictRequest(event=event("e1", cents=9)), timeout=5)
    assert (again.role, again.score) == (ROLE_REPEAT, answer.score)
    first, second = await deployment.predicted(2)
    assert [first.role, second.role] == [ROLE_ANSWER, ROLE_REPEAT]
    assert (first.prediction_id, first.channel) == (answer.prediction_id, CHANNEL_UNARY)
    assert first.features == answer.features
    assert not first.ingested
    assert await gateway.stop() == 0


async def test_vectors_are_scored_in_their_order(deployment: Deployment) -> None:
    await deployment.route("000001", -1.0, untrained=True)
    gateway = await deployment.start()
    for partition in range(4):
        await deployment.send_vectors([f"e{partition}-{i}" for i in range(50)], partition=partition, cents=500)
    found = await deployment.predicted(200)
    assert {one.event_id for one in found} == {f"e{p}-{i}" for p in range(4) for i in range(50)}
    assert all(one.role == ROLE_ANSWER and one.channel == CHANNEL_KAFKA and one.ingested for one in found)
    assert {one.prediction_id for one in found} == {f"k-{p}-{i}" for p in range(4) for i in range(50)}
    one = found[0]
    assert one.score == pytest.approx(score_of(500, -1.0), abs=1e-6)
    assert (one.untrained, one.decision) == (True, "accept")
    assert one.source.topic == deployment.topics.events
    assert await gateway.stop() == 0
