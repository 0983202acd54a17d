"""The gRPC methods and their errors, against a gateway process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from headrace.platform.partitioning import murmur2_partition
from headrace.v1.event_pb2 import Event
from headrace.v1.model_pb2 import RoutedVersion
from headrace.v1.prediction_pb2 import (
    CHANNEL_BATCH,
    CHANNEL_STREAM,
    ROLE_ANSWER,
    ROLE_REPEAT,
    ROUTE_PINNED,
)
from headrace.v1.prediction_service_pb2 import (
    Column,
    GetFeaturesRequest,
    PredictBatchRequest,
    PredictOptions,
    PredictRequest,
    StreamPredictResponse,
)
from tests.integration.gateway.deployment import (
    START_US,
    Deployment,
    GatewayProcess,
    checked,
    event,
    eventually,
    pipeline,
    score_of,
)

pytestmark = pytest.mark.timeout(120)


def batch(ids: list[str], cents: list[int], **options: object) -> PredictBatchRequest:
    count = len(ids)
    return PredictBatchRequest(
        event_ids=ids,
        event_times_us=[START_US + i for i in range(count)],
        columns=[
            Column(name="customer_id", texts=[f"c{i % 7}" for i in range(count)]),
            Column(name="terminal_id", texts=["t1"] * count),
            Column(name="amount_cents", numbers=[float(one) for one in cents]),
        ],
        options=PredictOptions(**options),  # type: ignore[arg-type]
    )


def violations(error: grpc.aio.AioRpcError) -> list[str]:
    status = rpc_status.from_call(error)
    assert status is not None
    found = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(found)
    return [one.field for one in found.field_violations]


async def refused(call: grpc.aio.UnaryUnaryCall[object, object], code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() == code, caught.value.details()
    assert "Traceback" not in (caught.value.details() or "")
    return caught.value


async def test_the_three_calls_ingest_each_event_once(deployment: Deployment) -> None:
    await deployment.route("000001", 0.5)
    gateway = await deployment.start()
    ingest = PredictOptions(ingest=True)
    for i in range(5):
        request = PredictRequest(event=event(f"u{i}", customer=f"c{i}"), options=ingest)
        for _ in range(2):
            await gateway.predictions.Predict(request, timeout=5)
    ids = [f"b{i}" for i in range(2500)]
    for _ in range(2):
        answered = await gateway.predictions.PredictBatch(batch(ids, list(range(2500)), ingest=True), timeout=10)
        assert list(answered.event_ids) == ids
        assert answered.scores == pytest.approx([score_of(i, 0.5) for i in range(2500)], abs=1e-6)
        assert list(answered.model_versions) == ["000001"]
    assert set(answered.roles) == {ROLE_REPEAT}

    def requests() -> Iterator[PredictRequest]:
        for i in range(300):
            yield PredictRequest(event=event(f"s{i}", cents=i), options=ingest)
        yield PredictRequest(event=event("bad", cents=-1))
        yield PredictRequest(event=event("s0", cents=7), options=ingest)

    stream: dict[str, list[StreamPredictResponse]] = {}
    async for answer in gateway.predictions.StreamPredict(requests(), timeout=20):
        stream.setdefault(answer.event_id, []).append(answer)
    assert set(stream) == {f"s{i}" for i in range(300)} | {"bad"}
    assert stream["bad"][0].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "amount_cents is -1" in stream["bad"][0].error.message
    assert stream["s9"][0].prediction.score == pytest.approx(score_of(9, 0.5), abs=1e-6)
    assert sorted(one.prediction.role for one in stream["s0"]) == [ROLE_ANSWER, ROLE_REPEAT]
    assert await gateway.stop() == 0
    predictions = await deployment.predictions()
    expected = {f"u{i}" for i in range(5)} | set(ids) | {f"s{i}" for i in range(300)}
    assert Counter(one.event_id for one in predictions if one.role == ROLE_ANSWER) == Counter(expected)
    assert Counter(one.event_id for one in predictions if one.role == ROLE_REPEAT) == Counter(
        [*(f"u{i}" for i in range(5)), *ids, "s0"]
    )
    channels = {one.event_id[0]: one.channel for one in predictions}
    assert (channels["b"], channels["s"]) == (CHANNEL_BATCH, CHANNEL_STREAM)
    assert all(one.ingested == (one.role == ROLE_ANSWER) for one in predictions)
    records = await deployment.records(deployment.topics.events)
    assert Counter(Event.FromString(record.value).event_id for record in records) == Counter(expected)
    for record in records:
        assert record.partition == murmur2_partition(record.key, 4)
        assert Event.FromString(record.value).answered
    u3 = next(record for record in records if Event.FromString(record.value).event_id == "u3")
    assert (u3.key, u3.value) == (b"c3", deployment.packed(checked("u3", "c3")))


async def test_options_and_features(deployment: Deployment) -> None:
    old: RoutedVersion = await deployment.route("000001", 0.1)
    await deployment.route("000002", 0.9, previous=[old])
    gateway = await deployment.start()
    pinned = await gateway.predictions.Predict(
        PredictRequest(event=event("e1"), options=PredictOptions(model_version="000001")), timeout=5
    )
    assert (pinned.model_version, pinned.route) == ("000001", ROUTE_PINNED)
    assert pinned.score == pytest.approx(score_of(1000, 0.1), abs=1e-6)
    overridden = await gateway.predictions.Predict(
        PredictRequest(event=event("e2"), options=PredictOptions(overrides={"amount": 70.0}, explain=True)), timeout=5
    )
    assert overridden.features[0] == 70.0
    assert overridden.score == pytest.approx(score_of(7000, 0.9), abs=1e-6)
    logged = {one.event_id: one for one in await deployment.predicted(2)}
    assert list(logged["e2"].overridden) == ["amount"]
    features = await gateway.features.GetFeatures(GetFeaturesRequest(event=event("e3")), timeout=5)
    assert list(features.names) == list(pipeline.feature_names)
    assert features.values[0] == 10.0
    assert features.features_fingerprint == pipeline.features_fingerprint


async def test_errors_follow_the_standard_model(deployment: Deployment) -> None:
    await deployment.route("000001")
    gateway = await deployment.start()
    predict = gateway.predictions.Predict

    def invalid(request: PredictRequest) -> object:
        return refused(predict(request, timeout=5), grpc.StatusCode.INVALID_ARGUMENT)

    wrong = event("e1")
    wrong.fields.update({"amount": 3})
    assert violations(await invalid(PredictRequest(event=wrong))) == ["event.fields.amount"]  # type: ignore[misc]
    assert violations(await invalid(PredictRequest())) == ["event.event_id"]  # type: ignore[misc]
    options = PredictOptions(overrides={"amout": 1.0})
    request = PredictRequest(event=event("e1"), options=options)
    assert violations(await invalid(request)) == ["options.overrides.amout"]  # type: ignore[misc]
    missing = PredictRequest(event=event("e1"), options=PredictOptions(model_version="9"))
    assert "9" in str((await refused(predict(missing, timeout=5), grpc.StatusCode.NOT_FOUND)).details())
    elsewhere = PredictRequest(pipeline="clicks", event=event("e1"))
    await refused(predict(elsewhere, timeout=5), grpc.StatusCode.NOT_FOUND)

    def bad_batch(request: PredictBatchRequest) -> object:
        return refused(gateway.predictions.PredictBatch(request, timeout=5), grpc.StatusCode.INVALID_ARGUMENT)

    found = await bad_batch(batch(["a", "", "c"], [1, 2, -3]))  # type: ignore[misc]
    assert violations(found) == ["events[1].event_id", "events[2].fields.amount_cents"]
    assert violations(await bad_batch(batch([], []))) == ["event_ids"]  # type: ignore[misc]
    short = batch(["a", "b"], [1])
    assert violations(await bad_batch(short)) == ["columns.amount_cents"]  # type: ignore[misc]
    unknown = batch(["a"], [1])
    unknown.columns[1].name = "terminal"
    found = await bad_batch(unknown)  # type: ignore[misc]
    assert violations(found) == ["columns.terminal", "columns.terminal_id"]
    assert await deployment.predictions() == []


async def test_health_and_reflection(deployment: Deployment) -> None:
    gateway = await deployment.start(wait_ready=False)
    health = health_pb2_grpc.HealthStub(gateway.channel)

    async def status(service: str) -> int:
        # The process is only about to start.
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=40, wait_for_ready=True)
        return int(answer.status)

    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert await status("") == not_serving
    assert await status("headrace.v1.PredictionService") == not_serving
    error = await refused(
        gateway.predictions.Predict(PredictRequest(event=event("e1")), timeout=5), grpc.StatusCode.UNAVAILABLE
    )
    assert "no model version" in str(error.details())
    assert (await gateway.readiness())["components"]["routes"]["reason"] == "no route table yet"
    await deployment.route("000001")
    await gateway.ready()

    assert await status("headrace.v1.PredictionService") == await status("") == serving
    assert await status("headrace.v1.FeatureService") == serving
    reflection = reflection_pb2_grpc.ServerReflectionStub(gateway.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    names = set()
    async for answer in reflection.ServerReflectionInfo(asked, timeout=5):
        names |= {one.name for one in answer.list_services_response.service}
    assert names >= {"headrace.v1.PredictionService", "headrace.v1.FeatureService", "grpc.health.v1.Health"}


async def test_a_full_spool_refuses_with_a_delay(deployment: Deployment) -> None:
    await deployment.route("000001")
    # Shipping waits longer than the test: the spool fills.
    gateway: GatewayProcess = await deployment.start(GATEWAY_SPOOL_BYTES=1 << 20, GATEWAY_SPOOL_SHIP_MS=10_000)
    number = 0

    async def fill() -> None:
        nonlocal number
        while number < 20:
            ids = [f"e{number}-{i}" for i in range(2000)]
            await gateway.predictions.PredictBatch(batch(ids, [1] * 2000), timeout=5)
            number += 1

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fill()
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(caught.value)
    assert status is not None
    delay = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(delay)
    assert delay.retry_delay.ToMilliseconds() > 0

    async def not_ready() -> bool:
        return "the spool is full" in str(await gateway.readiness())

    await eventually(not_ready, "readiness says that the spool is full")
    # A stop ships what is there without waiting any longer.
    assert await gateway.stop() == 0
    answered = Counter(one.event_id for one in await deployment.predictions())
    assert {f"e{n}-{i}" for n in range(number) for i in range(2000)} <= set(answered)
    assert set(answered.values()) == {1}
