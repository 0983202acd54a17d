"""A history through the whole loop on a private stack, and what it has left in Kafka and on disk."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from deploy.local import Stack
from headrace.cli.lineage_trace import Tracer
from headrace.cli.model_catalog import read_catalog
from headrace.cli.record_search import RecordSearch
from headrace.demo.following import follow
from headrace.demo.grpc_calls import Caller
from headrace.demo.history import History
from headrace.demo.publishing import Publisher
from headrace.demo.recording import Recording
from headrace.demo.replay import Replay
from headrace.demo.run import PATIENT
from headrace.learner import order_log, signed_artifacts, snapshot
from headrace.learner.announcements import read_announced
from headrace.learner.errors import LearnerError, SnapshotError
from headrace.learner.replay import replay
from headrace.pipeline import Pipeline
from headrace.platform import kafka
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import Verifier
from headrace.platform.topics import Topics, deployed_name
from headrace.v1.event_pb2 import Label
from headrace.v1.model_pb2 import ModelVersion
from headrace.v1.prediction_pb2 import Outcome, Prediction
from headrace.v1.prediction_service_pb2_grpc import PredictionServiceStub
from tests.chaos.learning_account import Account, Position, compare_lineage, compare_outcomes
from tests.chaos.learning_stack import LoopServices
from tests.integration.gateway.deployment import eventually

DECLARATION = "pipelines/fraud.py"
READ_S = 120.0
REGISTERED_S = 300.0
TRACED = 40
"""So many events are followed from their id to the artifact that answered."""


@dataclass
class Loop:
    """One run of the loop.

    Args:
        stack: a private one, its infrastructure up.
        pipeline: the declaration.
        history: what is replayed.
        namespace: of this run alone.
        directory: for logs, artifacts and state.
        lockstep: step by step, or flowing at `rate` events per second.
        commands: of services that are not started as always.
        mlflow_server: register at a server, and not in a file.
        within_s: seconds in which all must be learned, whatever happens meanwhile.
    """

    stack: Stack
    pipeline: Pipeline
    history: History
    namespace: str
    directory: Path
    lockstep: bool = False
    rate: float = 150.0
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    mlflow_server: bool = False
    within_s: float = 1200.0

    def __post_init__(self) -> None:
        self.directory.mkdir()
        self.topics = Topics(deployed_name(self.pipeline.name, self.namespace))
        self.bootstrap = f"127.0.0.1:{self.stack.ports.kafka}"
        self.registry = self.directory / "mlflow" / "mlflow.db"
        self.registry.parent.mkdir()
        settings = {
            "HEADRACE_PIPELINE": DECLARATION,
            "HEADRACE_NAMESPACE": self.namespace,
            "HEADRACE_LEARNER_LOCKSTEP": str(self.lockstep).lower(),
            "HEADRACE_LEARNER_PUBLISH_INTERVAL_S": "0.5",
            # No version may leave before it is looked at.
            "HEADRACE_LEARNER_KEEP_VERSIONS": "100000",
            "HEADRACE_ROLLOUT_MLFLOW_URI": f"sqlite:///{self.registry}",
            "HEADRACE_ROLLOUT_MLFLOW_INTERVAL_S": "1",
            **PATIENT,
        }
        registry = self.registry.parent if self.mlflow_server else None
        self.services = LoopServices(self.stack, self.directory, settings, self.commands, registry=registry)
        self.recording = Recording(self.history, self.pipeline)
        self.took_s = 0.0
        self.failed_requests: list[str] = []

    async def run(self, meanwhile: Callable[[], Awaitable[Any]] | None = None) -> None:
        """Start the services, replay the history, and stop them.

        Args:
            meanwhile: runs beside the replay, and is cancelled when all of it is learned. Then the newest version is to
                come into traffic and into the registry.
        """
        try:
            async with asyncio.timeout(self.within_s), asyncio.TaskGroup() as tasks:
                await self.services.start()
                supervising = tasks.create_task(self.services.supervise())
                await self.services.all_ready()
                going_on = tasks.create_task(_wait_for(meanwhile)) if meanwhile is not None else None
                began = time.monotonic()
                await self._replay()
                self.took_s = time.monotonic() - began
                if going_on is not None:
                    going_on.cancel()
                await eventually(
                    self._newest_is_registered, "the newest version is routed and registered", REGISTERED_S
                )
                supervising.cancel()
        except BaseException as error:
            error.add_note(f"reached: {self.recording.counts}, kills and ends: {self.services.exits}")
            error.add_note(self.services.last_words())
            raise
        finally:
            await self.services.stop()

    async def _replay(self) -> None:
        recording = self.recording
        async with (
            kafka.KafkaAdmin(self.bootstrap, timeout_s=60) as admin,
            kafka.producer(self.bootstrap) as producer,
            follow(recording, self.topics, self.bootstrap) as follower,
            grpc.aio.insecure_channel(f"127.0.0.1:{self.stack.ports.gateway}") as channel,
        ):
            stub: Any = PredictionServiceStub(channel)
            caller = Caller(stub, self.pipeline, self.history)
            publisher = Publisher(producer, self.topics, self.pipeline, self.history)
            driver = Replay(self.pipeline, publisher, caller, follower, admin, producer, self.topics, self.rate)
            await follower.until(lambda: bool(recording.routes), lambda: "the first route table")
            await (driver.lockstep() if self.lockstep else driver.flow())
        self.failed_requests = recording.failed_requests

    # What it has left ------------------------------------------------------------------------------------------------

    async def versions(self) -> list[ModelVersion]:
        """All announced versions."""
        return await read_announced(self.bootstrap, self.topics)

    async def account(self) -> Account:
        """What is wrong."""
        found = Account()
        history = self.history
        labels = {
            history.ids[row]: Label(
                event_id=history.ids[row],
                value=float(history.positive[row]),
                label_time_us=int(history.label_time_us[row]),
            )
            for row in range(len(history))
            if history.labelled[row]
        }
        predictions = [Prediction.FromString(value) for _, value in await self._read(self.topics.predictions)]
        outcomes = [(place, Outcome.FromString(value)) for place, value in await self._read(self.topics.outcomes)]
        compare_outcomes(found, labels, predictions, outcomes)
        versions = await self.versions()
        names = {one.version for one in versions}
        found.versions_unknown = sorted({one.model_version for one in predictions} - names)
        store, verifier = ArtifactStore(self.services.artifacts), Verifier.read(self.services.public_key)
        orders = {}
        for version in versions:
            for artifact in (version.onnx, version.snapshot, version.order):
                try:
                    content = signed_artifacts.get(store, verifier, artifact, version.version)
                except SnapshotError as error:
                    found.artifacts_wrong.append(str(error))
                    continue
                if len(content) != artifact.size_bytes:
                    found.artifacts_wrong.append(artifact.uri)
                if artifact == version.order:
                    orders[version.version] = order_log.decode(content)
        compare_lineage(found, versions, orders, [place for place, _ in outcomes])
        for version in versions:
            if wrong := await self._replayed(version.version, store, verifier):
                found.replays_wrong.append(f"{version.version}: {wrong}")
        await self._trace(found)
        return found

    async def _replayed(self, version: str, store: ArtifactStore, verifier: Verifier) -> str:
        """What is wrong with a version that is learned again; empty where nothing is."""
        try:
            again = await replay(
                version,
                bootstrap=self.bootstrap,
                topics=self.topics,
                pipeline=self.pipeline,
                store=store,
                verifier=verifier,
            )
        except LearnerError as error:
            return str(error)
        return "" if again.same else f"{again.learned_count} learned, {again.duplicates} twice, equal: {again.equal}"

    async def _trace(self, found: Account) -> None:
        """Follow events that are spread over the history."""
        catalog = await read_catalog(self.bootstrap, self.topics, self.services.artifacts, self.services.public_key)
        async with RecordSearch(self.bootstrap) as search:
            tracer = Tracer(search, self.topics, self.pipeline, catalog, timeout_s=READ_S, whole=True)
            for event_id in self.history.ids[:: max(1, len(self.history) // TRACED)]:
                traced = await tracer.trace(event_id)
                if traced.missing or traced.outcome is None:
                    found.lineages_incomplete.append(f"{event_id}: {traced.missing or 'no outcome'}")

    async def weights(self) -> dict[int, Any]:
        """What each version has learned, by how many outcomes it has."""
        store, verifier = ArtifactStore(self.services.artifacts), Verifier.read(self.services.public_key)
        return {
            version.learned_count: snapshot.decode(
                signed_artifacts.get(store, verifier, version.snapshot, version.version)
            ).model
            for version in await self.versions()
        }

    async def _newest_is_registered(self) -> bool:
        return (await self.versions())[-1].version in self.registered()

    def registered(self) -> dict[str, int]:
        """How often each version is registered in MLflow."""
        if not self.registry.exists():
            return {}
        with closing(sqlite3.connect(f"file:{self.registry}?mode=ro", uri=True)) as database:
            rows = database.execute(
                "select value, count(*) from model_version_tags where key = 'headrace.version' group by value"
            ).fetchall()
        return {str(version): int(count) for version, count in rows}

    async def _read(self, topic: str) -> list[tuple[Position, bytes]]:
        """All committed records of a topic."""
        ends = {
            kafka.TopicPartition(topic, partition): end
            for partition, end in (await kafka.end_offsets(self.bootstrap, topic)).items()
        }
        found: list[tuple[Position, bytes]] = []
        async with asyncio.timeout(READ_S), kafka.consumer(self.bootstrap, partitions=ends) as reader:
            while any([await reader.position(at) < end for at, end in ends.items()]):
                for at, records in (await reader.getmany(timeout_ms=200)).items():
                    found += [((at.partition, record.offset), record.value) for record in records]
        return found


async def _wait_for(meanwhile: Callable[[], Awaitable[Any]]) -> None:
    await meanwhile()
