"""A pipeline of numbers, from its events to the answers of a version that learned from them, and back by lineage."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import numpy as np
import onnxruntime
import pytest

from deploy.local import Layout
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.topics import deployed_name
from headrace.v1.event_pb2 import Event, Label
from headrace.v1.prediction_service_pb2 import PredictOptions, PredictRequest
from headrace.v1.prediction_service_pb2_grpc import PredictionServiceStub
from tests.end_to_end.private_services import PrivateServices
from tests.integration.loop.live_loop import LiveLoop, command, live_loop, remove

pytestmark = pytest.mark.timeout(240)

DECLARATION = Path(__file__).with_name("rides.py")
START_US = 1_600_000_000_000_000
HOUR_US = 3_600_000_000
ROUNDS = 4
PER_ROUND = 40
FEATURES = ("fare", "rider_count_1h", "rider_mean_fare_cents_1d", "zone_count_1h")


@pytest.fixture
def environment(namespace: str, kafka_bootstrap: str, redis_url: str, triton_url: str) -> dict[str, str]:
    return {
        "HEADRACE_PIPELINE": str(DECLARATION),
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "HEADRACE_REDIS_URL": redis_url,
        "HEADRACE_TRITON_URLS": triton_url,
        "HEADRACE_LEARNER_PUBLISH_INTERVAL_S": "0.1",
        "HEADRACE_LEARNER_GATHER_S": "0.05",
        # What the newest route table names stays besides: the champion and one before it.
        "HEADRACE_LEARNER_KEEP_VERSIONS": "2",
        "HEADRACE_ROLLOUT_KEEP_PREVIOUS": "1",
        "HEADRACE_ROLLOUT_MLFLOW_URI": "off",
    }


@pytest.fixture
def services(tmp_path: Path, environment: dict[str, str]) -> Iterator[PrivateServices]:
    made = PrivateServices(tmp_path, environment, Layout(run=tmp_path / "local", keys=tmp_path / "keys"))
    try:
        made.start_services({})
        yield made
    finally:
        made.stop()


def ride(number: int) -> Event:
    chance = random.Random(number)
    made = Event(event_id=f"ride-{number}", event_time_us=START_US + number * 1_000_000)
    cents = chance.randrange(300, 4_000)
    made.fields.update({"rider_id": f"r{number % 7}", "zone_id": f"z{number % 3}", "fare_cents": cents})
    return made


def minutes(event: Event) -> float:
    cents = event.fields["fare_cents"]
    assert isinstance(cents, float)
    return 4.0 + cents / 100 * 1.5


def label(event: Event) -> Label:
    return Label(event_id=event.event_id, value=minutes(event), label_time_us=event.event_time_us + HOUR_US)


async def one_round(loop: LiveLoop, number: int) -> list[Event]:
    """Events by Kafka, their labels, and the version that has learned them in traffic."""
    events = [ride(number * PER_ROUND + one) for one in range(PER_ROUND)]
    await loop.send_events(events, "rider_id")
    await loop.answered(event.event_id for event in events)
    await loop.send_labels(label(event) for event in events)
    count = (number + 1) * PER_ROUND
    await loop.adopted(lambda model: model.learned_count >= count, f"a version that has learned {count}")
    return events


async def test_numbers_are_answered_learned_and_traced(
    services: PrivateServices, environment: dict[str, str], namespace: str, tmp_path: Path
) -> None:
    kafka_bootstrap, triton_url = environment["HEADRACE_KAFKA_BOOTSTRAP"], environment["HEADRACE_TRITON_URLS"]
    async with live_loop(kafka_bootstrap, deployed_name("rides", namespace)) as loop:
        await loop.adopted(lambda model: model.untrained, "the untrained version")
        first, *_, last = [await one_round(loop, number) for number in range(ROUNDS)]
        for event in first:
            before = loop.answers[event.event_id]
            assert (before.model_version, before.untrained, before.decision) == ("000000", True, "accept")
        errors = [
            [abs(loop.answers[event.event_id].score - minutes(event)) for event in events] for events in (first, last)
        ]
        assert np.mean(errors[1]) < 0.25 * np.mean(errors[0])

        # The version that answers gives what its file gives for the features that it was given.
        newest = loop.routes[-1].champion.model
        store = ArtifactStore(tmp_path / "artifacts")
        session = onnxruntime.InferenceSession(store.get(newest.onnx.uri, newest.onnx.sha256.hex()))
        called = ride(ROUNDS * PER_ROUND)
        async with grpc.aio.insecure_channel(services.gateway) as channel:
            answer = await PredictionServiceStub(channel).Predict(
                PredictRequest(event=called, options=PredictOptions(explain=True, ingest=True)), timeout=10
            )
        assert (answer.model_version, list(answer.degradations)) == (newest.version, [])
        rows = np.array([list(answer.features)], np.float32)
        assert answer.score == session.run(["score"], {"features": rows})[0].item()
        assert answer.score == pytest.approx(minutes(called), abs=10)
        assert answer.decision == ("review" if answer.score >= 20 else "accept")
        assert (newest.learned_count, newest.metrics["mean_absolute_error"] > 0) == (ROUNDS * PER_ROUND, True)
        assert "log_loss" not in newest.metrics
        await loop.answered([called.event_id])

        await every_answer_is_traced(loop, environment | services_environment(services, tmp_path))
    assert services.ended() == []
    await asyncio.to_thread(services.stop)
    await remove(loop, environment["HEADRACE_REDIS_URL"], triton_url)


def services_environment(services: PrivateServices, directory: Path) -> dict[str, str]:
    """Where the files are, and the key to verify them."""
    return {
        "HEADRACE_ARTIFACTS": str(directory / "artifacts"),
        "HEADRACE_SIGNING_PUBLIC_KEY": str(services.layout.keys / "model_signing.pub.pem"),
    }


async def every_answer_is_traced(loop: LiveLoop, environment: dict[str, str]) -> None:
    """By `headrace lineage`: also where the version has left `models`, and for a call that was ingested."""
    announced = {one.version: one for one in await loop.announced()}
    by_version: dict[str, str] = {}
    for event_id, answer in loop.answers.items():
        by_version.setdefault(answer.model_version, event_id)
    gone = [version for version in by_version if version not in announced]
    assert len(gone) >= 2
    assert "000000" in gone
    called = f"ride-{ROUNDS * PER_ROUND}"
    trained = max(gone)
    for event_id in (by_version["000000"], by_version[trained], called):
        answer = loop.answers[event_id]
        found = await command(environment, "lineage", event_id)
        assert found["complete"], found["missing"]
        assert found["event"]["position"].startswith(f"{loop.topics.events}/")
        assert list(found["features"]["values"]) == [
            "fare",
            "rider_count_1h",
            "rider_mean_fare_cents_1d",
            "zone_count_1h",
        ]
        assert list(found["features"]["values"].values()) == list(answer.features)
        assert found["prediction"]["score"] == answer.score
        assert found["features"]["evaluated_at"]["events"] == list(answer.event_positions)
        model = found["model"]
        assert model["version"] == answer.model_version
        assert sum(one["end"] - one["first"] for one in model["learned"]) >= model["learned_count"]
        assert (len(model["artifacts"]["onnx"]["sha256"]), model["artifacts"]["onnx"]["signature"]) == (64, "verified")
        assert found["ancestors"]["whole"]
        if event_id == called:
            assert found["outcome"] is None
            assert model["learned_count"] == ROUNDS * PER_ROUND
            assert found["ancestors"]["count"] == int(model["version"])
            continue
        assert model["artifacts"]["onnx"]["file"] == "missing"
        assert found["outcome"]["label"] == minutes(ride(int(event_id.removeprefix("ride-"))))
        learned_by = found["outcome"]["learned_by"]["linear_regression"]
        assert learned_by > answer.model_version
