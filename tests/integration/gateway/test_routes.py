"""Champion, canary, shadow and pinned versions, by gRPC and from Kafka; and what caches answer."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import pytest

from headrace.gateway.sticky_share import StickyShare
from headrace.v1.prediction_pb2 import (
    ROLE_ANSWER,
    ROLE_SHADOW,
    ROUTE_CANARY,
    ROUTE_CHAMPION,
    ROUTE_PINNED,
    ROUTE_SHADOW,
    Prediction,
)
from headrace.v1.prediction_service_pb2 import GetFeaturesRequest, PredictOptions, PredictRequest, PredictResponse
from tests.integration.gateway.deployment import Deployment, GatewayProcess, event, eventually, score_of

CUSTOMERS = [f"c{number}" for number in range(40)]


async def ask(gateway: GatewayProcess, event_id: str, customer: str, version: str = "") -> PredictResponse:
    request = PredictRequest(event=event(event_id, customer=customer), options=PredictOptions(model_version=version))
    answer: PredictResponse = await gateway.predictions.Predict(request, timeout=10)
    return answer


async def test_a_canary_answers_its_customers_and_a_shadow_nobody(deployment: Deployment) -> None:
    champion = await deployment.load("000001")
    canary = await deployment.load("000002", 1.0, share=0.5)
    shadow = await deployment.load("000003", 2.0)
    await deployment.publish(champion, canary=canary, shadows=[shadow])
    gateway = await deployment.start()
    await deployment.in_use(gateway, 1)
    answers = await asyncio.gather(*(ask(gateway, f"e-{one}", one) for one in CUSTOMERS))
    again = await asyncio.gather(*(ask(gateway, f"f-{one}", one) for one in CUSTOMERS))
    share = StickyShare((deployment.topics.deployed, "000002"), 0.5)
    expected = ["000002" if one in share else "000001" for one in CUSTOMERS]
    assert [one.model_version for one in answers] == expected
    assert [one.model_version for one in again] == expected
    assert {one.route for one in answers} == {ROUTE_CHAMPION, ROUTE_CANARY}
    assert {round(one.score, 5) for one in answers} == {round(score_of(1000, bias), 5) for bias in (0.0, 1.0)}
    pinned = await ask(gateway, "pinned", "c1", "000003")
    assert (pinned.model_version, pinned.route) == ("000003", ROUTE_PINNED)
    found = await deployment.predicted(len(CUSTOMERS) * 4 + 1)
    shadows = [one for one in found if one.role == ROLE_SHADOW]
    answered = {one.prediction_id: one for one in found if one.role == ROLE_ANSWER}
    assert Counter(one.event_id for one in shadows) == Counter(one.event_id for one in [*answers, *again])
    for one in shadows:
        assert (one.model_version, one.route) == ("000003", ROUTE_SHADOW)
        assert one.score == pytest.approx(score_of(1000, 2.0), abs=1e-6)
        assert one.features == answered[one.prediction_id.removesuffix("-s-000003")].features


async def test_vectors_go_the_same_ways(deployment: Deployment) -> None:
    champion = await deployment.load("000001")
    canary = await deployment.load("000002", 1.0, share=1.0)
    shadow = await deployment.load("000003", 2.0)
    await deployment.publish(champion, canary=canary, shadows=[shadow])
    await deployment.start()
    await deployment.send_vectors([f"k{number}" for number in range(50)])
    found = await deployment.predicted(100)
    assert Counter((one.role, one.model_version) for one in found) == {
        (ROLE_ANSWER, "000002"): 50,
        (ROLE_SHADOW, "000003"): 50,
    }
    assert len({one.prediction_id for one in found}) == 100
    assert all(one.HasField("source") for one in found)


async def test_a_shadow_that_cannot_run_takes_nothing_from_the_answers(deployment: Deployment) -> None:
    champion = await deployment.load("000001")
    broken = await deployment.load("000002", load=False)
    broken.model.onnx.signature = bytes(64)
    await deployment.publish(champion, shadows=[broken])
    gateway = await deployment.start()
    await deployment.in_use(gateway, 1)
    answer = await ask(gateway, "e", "c1")
    assert (answer.model_version, list(answer.degradations)) == ("000001", [])
    await deployment.send_vectors(["k"])
    found = await deployment.predicted(2)
    assert {(one.event_id, one.role) for one in found} == {("e", ROLE_ANSWER), ("k", ROLE_ANSWER)}


async def test_a_table_change_takes_effect_with_no_failed_call(deployment: Deployment) -> None:
    versions = [await deployment.load(f"00000{number}", float(number)) for number in range(1, 4)]
    await deployment.publish(versions[0])
    gateway = await deployment.start()
    await deployment.in_use(gateway, 1)
    answers: list[PredictResponse] = []
    done = asyncio.Event()

    async def keep_asking(caller: int) -> None:
        count = 0
        while not done.is_set():
            answers.append(await ask(gateway, f"{caller}-{count}", f"c{caller}"))
            count += 1

    async def answered(count: int) -> bool:
        return len(answers) >= count

    async def change() -> None:
        for champion in [*versions[1:], *versions]:
            before = len(answers)
            await deployment.publish(champion, [one for one in versions if one is not champion])
            await deployment.in_use(gateway, deployment.epoch)
            await eventually(partial(answered, before + 20), "calls go on", every_s=0.005)
        done.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(change())
        for caller in range(8):
            tasks.create_task(keep_asking(caller))
    for one in answers:
        assert one.score == pytest.approx(score_of(1000, float(one.model_version)), abs=1e-6)
    assert {one.model_version for one in answers} == {"000001", "000002", "000003"}


async def test_caches_answer_the_same_and_say_so(deployment: Deployment) -> None:
    await deployment.route("000001")
    gateway = await deployment.start(
        GATEWAY_INFERENCE_CACHE_BYTES=1 << 20, GATEWAY_FEATURE_CACHE_MS=60_000, GATEWAY_FEATURE_CACHE_BYTES=1 << 20
    )
    plain = await deployment.start(GATEWAY_INSTANCE="plain", GATEWAY_KAFKA_SCORER="false")
    first = [await ask(gateway, f"e{number}", "c1") for number in range(5)]
    fresh = [await ask(plain, f"p{number}", "c1") for number in range(5)]
    assert [one.score for one in first] == [one.score for one in fresh]
    assert {one.features_age_ms for one in first} == {-1}
    assert await gateway.metric("headrace_gateway_cache_lookups_total") >= 10
    text = await gateway.metrics_text()
    assert 'headrace_gateway_cache_lookups_total{cache="features",result="hit"} 4.0' in text
    assert 'headrace_gateway_cache_lookups_total{cache="scores",result="hit"} 4.0' in text
    # An event that this gateway passes on ends what it kept of the keys.
    request = PredictRequest(event=event("ingested", customer="c1"), options=PredictOptions(ingest=True))
    await gateway.predictions.Predict(request, timeout=10)
    await gateway.features.GetFeatures(GetFeaturesRequest(event=event("x", customer="c1")), timeout=10)
    assert 'headrace_gateway_cache_lookups_total{cache="features",result="hit"} 5.0' in await gateway.metrics_text()
    found: list[Prediction] = await deployment.predicted(11)
    assert len({one.prediction_id for one in found}) == 11
