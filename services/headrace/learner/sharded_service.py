"""Learners that share the outcomes: where the parts of one are put together.

Each process learns its partitions; the one that leads merges as well.
"""

from __future__ import annotations

import asyncio
import contextlib

from headrace.learner import leadership, metrics
from headrace.learner.announcements import announcer
from headrace.learner.errors import LearnerError
from headrace.learner.leadership import PlacedCommand
from headrace.learner.merging import check_mergeable, unsupported
from headrace.learner.recipes import declared
from headrace.learner.retention import Retention
from headrace.learner.settings import LearnerSettings
from headrace.learner.sharded_deployment import ShardedDeployment
from headrace.learner.sharded_learning import POLL_S, ShardLearner
from headrace.learner.sharded_merger import Merger
from headrace.learner.sharded_versions import version_tail
from headrace.pipeline import Pipeline
from headrace.platform import kafka
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.health import Health
from headrace.platform.lifecycle import Deadline
from headrace.platform.logging import get_logger
from headrace.platform.pipelines import load_pipeline
from headrace.platform.signing import Signer
from headrace.platform.topics import Topics, check_topics, deployed_name

HEARTBEAT_S = 120.0
COMMANDS_AHEAD = 64


class ShardedLearnerService:
    """Learns a share of the outcomes, and merges where this process leads.

    Args:
        settings: of the service; more than one shard.
        health: told what it waits for.

    Raises:
        PipelineLoadError: the pipeline cannot be loaded.
        UnsupportedRecipeError: the declared model has a part that cannot be merged.
        KeyFileError: the signing key is not a key.
    """

    def __init__(self, settings: LearnerSettings, health: Health) -> None:
        self._settings = settings
        pipeline = load_pipeline(settings.pipeline)
        check_shards(pipeline)
        self._deployment = ShardedDeployment(
            settings,
            Topics(deployed_name(pipeline.name, settings.namespace)),
            pipeline,
            ArtifactStore(settings.artifacts),
            Signer.read(settings.signing_key),
        )
        features, numeric = pipeline.feature_names, pipeline.label.numeric
        self._recipe = declared(pipeline.model, features, numeric=numeric)
        self._mergers_recipe = declared(pipeline.model, features, numeric=numeric)
        self._model = health.component("model")
        self._learning = health.heartbeat("learning", HEARTBEAT_S)
        self._merging = health.heartbeat("merging", HEARTBEAT_S)
        self._learning.suspend()
        self._merging.suspend()
        self._resources = contextlib.AsyncExitStack()
        self._log = get_logger()

    async def start(self) -> None:
        """Join the learners."""
        settings, topics, enter = self._settings, self._deployment.topics, self._resources.enter_async_context
        self._partitions = await check_topics(
            settings.kafka_bootstrap,
            topics.deployed,
            only=(topics.outcomes, topics.models, topics.control, topics.routes),
        )
        if settings.shards > self._partitions:
            raise LearnerError(
                f"HEADRACE_LEARNER_SHARDS={settings.shards}, but {topics.outcomes} has {self._partitions} partitions: "
                "at most as many learners can share them"
            )
        self._model.starting("waiting for a version to begin from")
        self._leadership = await enter(
            leadership.leadership(settings.kafka_bootstrap, topics, instance=settings.instance)
        )
        self._producer = await enter(kafka.producer(settings.kafka_bootstrap, linger_ms=0))
        self._tail = await enter(version_tail(settings.kafka_bootstrap, topics, self._recipe.fingerprint))

    async def run(self) -> None:
        """Learn until cancelled; lead where it is this process's turn."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._learn(), name="shard")
                await self._lead()
        except BaseExceptionGroup as group:
            # The first failure is the cause; the others are its consequence.
            raise group.exceptions[0] from group

    async def stop(self, deadline: Deadline) -> None:
        """Leave Kafka. What no version has is learned again."""
        async with asyncio.timeout(deadline.remaining()):
            await self._resources.aclose()

    async def _learn(self) -> None:
        first = None
        while first is None:
            first = await self._tail.newer(POLL_S)
        self._model.ready()
        await ShardLearner(self._deployment, self._recipe, self._learning).run(first, self._tail, self._producer)

    async def _lead(self) -> None:
        settings, topics = self._settings, self._deployment.topics
        await self._leadership.acquired()
        retention = Retention(
            self._deployment.store,
            self._deployment.signer,
            topics.deployed,
            keep=settings.keep_versions,
            lineage_days=settings.keep_lineage_days,
        )
        async with announcer(settings.kafka_bootstrap, topics, retention) as announces:
            metrics.EPOCH.set(announces.epoch)
            self._log.info("this shard merges", epoch=announces.epoch)
            merger = Merger(self._deployment, self._mergers_recipe, announces, self._merging)
            first = await merger.take_up(self._partitions)
            commands: asyncio.Queue[PlacedCommand] = asyncio.Queue(COMMANDS_AHEAD)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._leadership.lost(), name="leadership")
                tasks.create_task(self._read(first, commands), name="commands")
                await merger.merge_rounds(commands)

    async def _read(self, first: int, commands: asyncio.Queue[PlacedCommand]) -> None:
        async for command in self._leadership.commands(first):
            await commands.put(command)


def check_shards(pipeline: Pipeline) -> None:
    """Refuse a pipeline whose model cannot be learned in shards.

    Raises:
        UnsupportedRecipeError: names what cannot be merged.
    """
    if len(pipeline.models) > 1:
        raise unsupported(f"{len(pipeline.models)} models side by side")
    model = pipeline.model
    for name, off in (("calibration", None), ("reset_on_drift", None), ("corrections", "ignore")):
        if getattr(model, name) != off:
            raise unsupported(f"a model with {name}={getattr(model, name)!r}")
    check_mergeable(model.build())
