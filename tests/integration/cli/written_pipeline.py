"""What the services of a pipeline write, written by a test: versions as the learner makes them, and the rest."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from click.testing import CliRunner

from headrace.cli.__main__ import headrace
from headrace.learner.announcements import announcer
from headrace.learner.cohort import Cohort, Member
from headrace.learner.examples import Example
from headrace.learner.learning import Learning
from headrace.learner.recipes import declared
from headrace.learner.retention import Retention
from headrace.learner.versions import VersionBuilder, newest_of, next_versions
from headrace.platform import kafka
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.pipelines import load_pipeline
from headrace.platform.signing import Signer, create_key_pair
from headrace.platform.topics import Topics, deployed_name
from headrace.v1.event_pb2 import Event, Label, SourcePosition
from headrace.v1.model_pb2 import ModelVersion, RoutedVersion, RouteTable
from headrace.v1.prediction_pb2 import (
    CHANNEL_KAFKA,
    CHANNEL_UNARY,
    OUTCOME_KIND_LABELLED,
    ROLE_ANSWER,
    ROUTE_CHAMPION,
    Outcome,
    Prediction,
    Role,
)
from headrace.v1.vector_pb2 import FeatureVector

DECLARATION = "pipelines/fraud.py"
TIME_US = 1_600_000_000_000_000


class WrittenPipeline:
    """One deployed pipeline: topics, keys, artifacts, and a learner without a process."""

    def __init__(self, bootstrap: str, namespace: str, directory: Path) -> None:
        self.bootstrap = bootstrap
        self.namespace = namespace
        self.pipeline = load_pipeline(DECLARATION)
        self.topics = Topics(deployed_name(self.pipeline.name, namespace))
        self.store = ArtifactStore(directory / "artifacts")
        self.keys = create_key_pair(directory / "keys")
        self.signer = Signer.read(self.keys.private)
        names = self.pipeline.feature_names
        recipe = declared(self.pipeline.models[0], names)
        self.learning = Learning(recipe, names, self.pipeline.features_fingerprint, (0, 0))
        self.cohort = Cohort([Member(self.pipeline.models[0].name, self.learning, challenger=False)])

    async def versions(self, count: int, *, keep: int = 50) -> list[ModelVersion]:
        """Learn a hundred outcomes before each of so many versions but the first, and announce these."""
        builder = VersionBuilder(self.topics.deployed, self.pipeline.model.decision.threshold, self.store, self.signer)
        made = []
        retention = Retention(self.store, self.signer, self.topics.deployed, keep=keep)
        async with announcer(self.bootstrap, self.topics, retention) as announces:
            for number in range(count):
                if number:
                    self.learning.learn(self._examples(100))
                (name,) = next_versions(announces.newest, 1)
                parent = newest_of(announces.announced, self.learning.recipe.fingerprint)
                now_us = time.time_ns() // 1000
                learned = self.learning.learned_since_version
                made.append(builder.build(self.cohort.members[0], name, parent, announces.epoch, now_us))
                await announces.announce([made[-1]], 0)
                self.learning.version_announced(learned)
        return made

    def _examples(self, count: int) -> list[Example]:
        chance = random.Random(self.learning.learned_count)
        first = self.learning.next_offsets[0]
        return [
            Example(
                label_time_us=TIME_US + (first + number) * 1_000_000,
                event_id=f"e{first + number}",
                partition=0,
                offset=first + number,
                append_time_us=TIME_US,
                label=chance.random() < 0.3,
                row=[chance.gauss(0, 1) for _ in self.pipeline.feature_names],
                ignored="",
            )
            for number in range(count)
        ]

    async def route(self, champion: ModelVersion, *previous: ModelVersion) -> None:
        """Write a route table."""
        table = RouteTable(
            pipeline=self.topics.deployed,
            epoch=3,
            champion=RoutedVersion(model=champion, triton_model=f"{self.topics.deployed}-{champion.version}"),
            previous=[RoutedVersion(model=one) for one in previous],
            adopted=True,
        )
        await self.write(self.topics.routes, [(self.topics.deployed.encode(), table.SerializeToString())])

    async def write(
        self, topic: str, records: Sequence[tuple[bytes, bytes]], partition: int | None = None
    ) -> list[SourcePosition]:
        """Write keyed records; where they are."""
        async with kafka.producer(self.bootstrap) as producer:
            sent = [await producer.send(topic, value, key=key, partition=partition) for key, value in records]
            done = await asyncio.gather(*sent)
        return [SourcePosition(topic=one.topic, partition=one.partition, offset=one.offset) for one in done]

    def prediction(self, event_id: str, version: str, role: Role.ValueType = ROLE_ANSWER, **given: Any) -> Prediction:
        """A prediction as the gateway logs it."""
        fields: dict[str, Any] = {
            "prediction_id": f"p-{event_id}-{role}",
            "event_id": event_id,
            "event_time_us": TIME_US,
            "role": role,
            "score": 0.25,
            "decision": "accept",
            "model_version": version,
            "route": ROUTE_CHAMPION,
            "route_epoch": 3,
            "features_fingerprint": self.pipeline.features_fingerprint,
            "features": [number / 4 for number in range(len(self.pipeline.feature_names))],
            "entities": ["c1", "t1"],
            "event_positions": [4, -1],
            "outcome_positions": [-1, -1],
            "channel": CHANNEL_UNARY,
            "received_time_us": time.time_ns() // 1000,
        }
        return Prediction(**fields | given)

    async def scored(self, event_id: str, version: str, filling: int = 0) -> SourcePosition:
        """An event, its vector, and its prediction by the Kafka scorer, after others."""
        event = Event(event_id=event_id, event_time_us=TIME_US).SerializeToString()
        (source,) = await self.write(self.topics.events, [(b"c1", event)])
        prediction = self.prediction(event_id, version, channel=CHANNEL_KAFKA, source=source, ingested=True)
        vector = FeatureVector(event_id=event_id, source=source, values=prediction.features)
        await self.write(self.topics.vectors, [(b"c1", vector.SerializeToString())], source.partition)
        return await self.answered(prediction, filling)

    async def answered(self, prediction: Prediction, filling: int = 0) -> SourcePosition:
        """A prediction, after those of other events."""
        others = [
            (key, self.prediction(key.decode(), "000000").SerializeToString())
            for key in (b"other-%d" % number for number in range(filling))
        ]
        key = prediction.event_id.encode()
        written = await self.write(self.topics.predictions, [*others, (key, prediction.SerializeToString())])
        return written[-1]

    async def outcome(self, prediction: Prediction, at: SourcePosition, value: float) -> SourcePosition:
        """The label of an event, joined to its prediction."""
        key = prediction.event_id.encode()
        label = Label(event_id=prediction.event_id, value=value, label_time_us=TIME_US + 1)
        (label_at,) = await self.write(self.topics.labels, [(key, label.SerializeToString())])
        outcome = Outcome(
            prediction=prediction, label=label, kind=OUTCOME_KIND_LABELLED, prediction_source=at, label_source=label_at
        )
        (written,) = await self.write(self.topics.outcomes, [(key, outcome.SerializeToString())])
        return written

    async def forget(self, partition: kafka.TopicPartition, below: int) -> None:
        """Delete the records of a partition below an offset, as retention does."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.delete_records({partition: RecordsToDelete(below)})
        finally:
            await admin.close()

    async def command(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Run `headrace` in a thread of this process; its exit status and what it says."""
        environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("HEADRACE_")}
        environment |= {
            "HEADRACE_PIPELINE": DECLARATION,
            "HEADRACE_NAMESPACE": self.namespace,
            "HEADRACE_KAFKA_BOOTSTRAP": self.bootstrap,
            "HEADRACE_ARTIFACTS": str(self.store.directory),
            "HEADRACE_SIGNING_PUBLIC_KEY": str(self.keys.public),
            # Nothing but Kafka is asked for what is known.
            "HEADRACE_REDIS_URL": "redis://127.0.0.1:1/0",
            "HEADRACE_TRITON_URLS": "127.0.0.1:1",
        }
        environment |= variables
        result = await asyncio.to_thread(CliRunner().invoke, headrace, arguments, env=environment)
        known = isinstance(result.exception, SystemExit) or result.exception is None
        return result.exit_code, result.output if known else f"{type(result.exception).__name__}: {result.exception}"

    async def shown(self, *arguments: str, **variables: str) -> Any:
        """What a command says with --json."""
        status, said = await self.command(*arguments, "--json", **variables)
        assert status in {0, 1}, said
        return json.loads(said)
