"""The Kafka path: redeliveries, duplicates, vectors of other features, waiting for a route table."""

from __future__ import annotations

from collections import Counter

import pytest

from headrace.v1.alert_pb2 import Alert
from headrace.v1.event_pb2 import Rejected
from headrace.v1.prediction_pb2 import ROLE_ANSWER, ROLE_REPEAT
from headrace.v1.prediction_service_pb2 import PredictRequest
from tests.integration.gateway.deployment import Deployment, event, eventually, pipeline

pytestmark = pytest.mark.timeout(120)

OTHER = pipeline.features_fingerprint ^ 1


async def test_vectors_wait_for_a_route_table(deployment: Deployment) -> None:
    await deployment.send_vectors(["e1", "e2"])
    gateway = await deployment.start(wait_ready=False)

    async def waits() -> bool:
        return "no route table yet" in str(await gateway.readiness())

    await eventually(waits, "the gateway says what it waits for")
    await deployment.route("000001")
    await deployment.predicted(2)
    await gateway.ready()


async def test_a_vector_that_comes_again_is_dropped_also_by_the_next_process(deployment: Deployment) -> None:
    await deployment.route("000001")
    gateway = await deployment.start()
    await deployment.send_vectors([f"e{i}" for i in range(10)])
    await deployment.predicted(10)
    await gateway.kill()
    await deployment.send_vectors([f"e{i}" for i in range(4, 10)], again_from=4)
    await deployment.send_vectors(["last"])
    gateway = await deployment.start()
    found = await deployment.predicted(11)
    assert Counter(one.event_id for one in found) == Counter([*(f"e{i}" for i in range(10)), "last"])
    assert await gateway.metric("headrace_gateway_redelivered_vectors_total") == 6
    assert await gateway.stop() == 0


async def test_an_event_that_was_answered_is_repeated_and_answered_once(deployment: Deployment) -> None:
    await deployment.route("000001")
    gateway = await deployment.start()
    first = await gateway.predictions.Predict(PredictRequest(event=event("e1", cents=1000)), timeout=5)
    await deployment.send_vectors(["e1", "e2", "e2"], cents=9000)
    await deployment.send_vectors(["e2"], partition=1)
    found = await deployment.predicted(5)
    answers = [one for one in found if one.role == ROLE_ANSWER]
    assert Counter(one.event_id for one in answers) == {"e1": 1, "e2": 1}
    repeats = [one for one in found if one.role == ROLE_REPEAT]
    assert Counter(one.event_id for one in repeats) == {"e1": 1, "e2": 2}
    assert next(one.score for one in repeats if one.event_id == "e1") == first.score
    # A call for an event that came by Kafka gets that answer.
    again = await gateway.predictions.Predict(PredictRequest(event=event("e2", cents=1)), timeout=5)
    assert again.role == ROLE_REPEAT
    assert again.score == next(one.score for one in answers if one.event_id == "e2")


async def test_vectors_of_unknown_features_wait_in_place_and_raise_one_alert(deployment: Deployment) -> None:
    await deployment.route("000001")
    gateway = await deployment.start()
    await deployment.send_vectors(["a"])
    await deployment.send_vectors(["b", "c"], fingerprint=OTHER)
    await deployment.send_vectors(["d"])
    await deployment.send_vectors(["x"], partition=1, fingerprint=OTHER)
    await deployment.send_vectors(["y"], partition=2)

    async def waiting() -> bool:
        reason = str((await gateway.readiness())["components"]["assignment"].get("reason"))
        return f"0 ({OTHER:016x})" in reason and f"1 ({OTHER:016x})" in reason

    await eventually(waiting, "readiness names the partitions")
    found = await deployment.predicted(2)
    assert {one.event_id for one in found} == {"a", "y"}
    alerts = [Alert.FromString(record.value) for record in await deployment.records(deployment.topics.alerts, 1)]
    assert [(one.rule, one.subject) for one in alerts] == [("unknown_fingerprint", f"{OTHER:016x}")]
    # A version that takes these features is routed: they go on, and those of the old features wait now.
    await deployment.route("000002", fingerprint=OTHER)
    found = await deployment.predicted(5)
    assert {one.event_id for one in found} == {"a", "b", "c", "x", "y"}
    await deployment.route("000003")
    found = await deployment.predicted(6)
    assert Counter(one.event_id for one in found) == Counter("abcdxy")
    await gateway.ready()


async def test_a_record_that_is_no_vector_is_set_aside(deployment: Deployment) -> None:
    await deployment.route("000001")
    await deployment.writer.send_and_wait(deployment.topics.vectors, b"\xff\xff\xff", partition=0)
    await deployment.send_vectors(["a"])
    await deployment.start()
    found = await deployment.predicted(1)
    assert [one.event_id for one in found] == ["a"]
    records = await deployment.records(deployment.topics.rejected, 1)
    assert [Rejected.FromString(record.value).reason for record in records] == ["undecodable"]


async def test_two_gateways_share_the_partitions(deployment: Deployment) -> None:
    await deployment.route("000001")
    first = await deployment.start()
    second = await deployment.start(GATEWAY_INSTANCE="1")
    for number in range(6):
        for partition in range(4):
            await deployment.send_vectors([f"{number}-{partition}-{i}" for i in range(50)], partition=partition)
        if number == 2:
            assert await second.stop() == 0
    found = await deployment.predicted(1200, 60)
    assert set(Counter(one.prediction_id for one in found).values()) == {1}
    assert len(found) == 1200
    assert await first.stop() == 0
