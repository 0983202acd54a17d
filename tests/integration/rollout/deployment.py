"""A deployed pipeline of a test's own: it announces versions as a learner does, and follows what the rollout writes."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer
from onnx import TensorProto, helper

from headrace.platform.artifacts import ArtifactStore
from headrace.platform.health import Health
from headrace.platform.kafka import TopicPartition, consumer, send
from headrace.platform.leases import Leases
from headrace.platform.lifecycle import Deadline
from headrace.platform.pipelines import load_pipeline
from headrace.platform.settings import variable
from headrace.platform.signing import Signer
from headrace.platform.topics import Topics
from headrace.rollout.service import RolloutService
from headrace.rollout.settings import RolloutSettings
from headrace.rollout.triton import TritonAwayError, TritonServer
from headrace.v1 import alert_pb2, model_pb2, prediction_pb2

PIPELINE = load_pipeline("pipelines/fraud.py")
FEATURES = len(PIPELINE.feature_names)


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 15) -> None:
    """Wait until the condition holds."""
    try:
        async with asyncio.timeout(seconds):
            while not await condition():  # noqa: ASYNC110 (another process changes it)
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None


def logistic_model(weight: float) -> bytes:
    """ONNX of a logistic regression whose weights are all the same."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["sum"]),
            helper.make_node("Sigmoid", ["sum"], ["score"]),
        ],
        "logistic",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor("weights", TensorProto.FLOAT, [FEATURES, 1], [weight] * FEATURES)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


class Deployment:
    """One deployed pipeline: its topics, artifacts, leases and Triton."""

    def __init__(
        self,
        deployed: str,
        store: ArtifactStore,
        signer: Signer,
        producer: AIOKafkaProducer,
        leases: Leases,
        settings: dict[str, Any],
    ) -> None:
        self.topics = Topics(deployed)
        self.store = store
        self.signer = signer
        self.leases = leases
        self.settings = settings
        self.routes: list[model_pb2.RouteTable] = []
        self.alerts: list[alert_pb2.Alert] = []
        self._producer = producer

    def version(self, number: int, *, weight: float | None = None, learner_epoch: int = 1) -> model_pb2.ModelVersion:
        """A good version, stored and signed but not announced."""
        name = f"{number:06d}"
        weight = 0.01 * number if weight is None else weight
        onnx = logistic_model(weight)
        digest = hashlib.sha256(onnx).digest()
        stored = self.store.put(f"{self.topics.deployed}/models/{name}/model-{digest.hex()[:16]}.onnx", onnx)
        rows = np.random.default_rng(number).normal(size=(16, FEATURES)).astype(np.float32)
        scores = 1 / (1 + np.exp(-weight * rows.astype(np.float64).sum(axis=1)))
        return model_pb2.ModelVersion(
            pipeline=self.topics.deployed,
            version=name,
            parent=f"{number - 1:06d}" if number else "",
            kind=model_pb2.RELEASE_KIND_REFRESH,
            features_fingerprint=PIPELINE.features_fingerprint,
            recipe_fingerprint="ab" * 32,
            onnx=model_pb2.Artifact(
                uri=stored.uri, sha256=digest, size_bytes=stored.size, signature=self.signer.sign(digest)
            ),
            learned=[model_pb2.OffsetRange(partition=0, first=0, end=100 * number)],
            learned_count=100 * number,
            model_time_us=1_600_000_000_000_000 + number,
            metrics={"log_loss": 0.5},
            golden=model_pb2.GoldenRows(
                rows=16, features=rows.ravel().tolist(), scores=scores.tolist(), tolerance=1e-5
            ),
            learner_epoch=learner_epoch,
            feature_names=PIPELINE.feature_names,
        )

    async def announce(self, model: model_pb2.ModelVersion) -> None:
        """Announce a version on `models`."""
        await send(self._producer, self.topics.models, model.SerializeToString(), key=model.version.encode())

    async def answer(self, version: str, scores: Iterable[float]) -> None:
        """Write answers of a version as a gateway does."""
        for number, score in enumerate(scores):
            given = prediction_pb2.Prediction(
                prediction_id=f"{version}-{number}",
                event_id=f"event-{number}",
                role=prediction_pb2.ROLE_ANSWER,
                score=score,
                model_version=version,
                features_fingerprint=PIPELINE.features_fingerprint,
                features=[0.0] * FEATURES,
            )
            await send(self._producer, self.topics.predictions, given.SerializeToString(), key=b"event")

    async def routed(self, version: str, *, adopted: bool = False, seconds: float = 15) -> model_pb2.RouteTable:
        """Wait for the last route table to name this champion."""

        async def last_names_it() -> bool:
            last = self.routes[-1] if self.routes else model_pb2.RouteTable()
            return last.champion.model.version == version and (last.adopted or not adopted)

        await eventually(last_names_it, f"version {version} is routed{' and adopted' if adopted else ''}", seconds)
        return self.routes[-1]

    async def alerted(self, version: str) -> alert_pb2.Alert:
        """Wait for the alert about this version."""

        async def there() -> bool:
            return any(alert.subject == version for alert in self.alerts)

        await eventually(there, f"an alert about version {version}")
        return next(alert for alert in self.alerts if alert.subject == version)

    async def loaded(self, server: TritonServer) -> set[str]:
        """Versions of this deployment that a Triton serves now; none while it is away."""
        prefix = f"{self.topics.deployed}-"
        try:
            names = await server.ready_models()
        except TritonAwayError:
            return set()
        return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}

    async def serves(self, server: TritonServer, *versions: str, seconds: float = 15) -> None:
        """Wait until a Triton serves exactly these versions of this deployment."""
        found: set[str] = set()

        async def exactly() -> bool:
            found.clear()
            found.update(await self.loaded(server))
            return found == set(versions)

        try:
            await eventually(exactly, f"Triton serves {versions}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it serves {sorted(found)}") from None

    async def follow(self, bootstrap: str) -> None:
        """Collect route tables and alerts until cancelled."""
        partitions = [TopicPartition(self.topics.routes, 0), TopicPartition(self.topics.alerts, 0)]
        async with consumer(bootstrap, partitions=partitions) as reader:
            while True:
                for partition, records in (await reader.getmany(timeout_ms=200)).items():
                    for record in records:
                        if partition.topic == self.topics.alerts:
                            self.alerts.append(alert_pb2.Alert.FromString(record.value))
                        else:
                            assert record.key.decode() == self.topics.deployed
                            self.routes.append(model_pb2.RouteTable.FromString(record.value))

    def environment(self, **given: Any) -> dict[str, str]:
        """Environment for a rollout process of its own."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        for name, value in {**self.settings, **given}.items():
            variables[variable(RolloutSettings, name)] = ",".join(value) if isinstance(value, tuple) else str(value)
        return variables


@asynccontextmanager
async def running(deployment: Deployment, **given: Any) -> AsyncIterator[Health]:
    """The rollout service over the block; what it raises fails the test."""
    health = Health("rollout")
    service = RolloutService(RolloutSettings.load(**{**deployment.settings, **given}), health)
    task = None
    try:
        await service.start()
        task = asyncio.create_task(service.run())
        yield health
    finally:
        if task is not None and not task.done():
            task.cancel()
        failed = (await asyncio.gather(task, return_exceptions=True))[0] if task is not None else None
        await service.stop(Deadline(10))
    if failed is not None and not isinstance(failed, asyncio.CancelledError):
        raise failed
