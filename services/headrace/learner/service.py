"""The learner service: where its parts are put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from headrace.learner import leadership, metrics, modes, signed_artifacts, snapshot
from headrace.learner.announcements import Announcer, announcer
from headrace.learner.cohort import Cohort, Member
from headrace.learner.errors import SnapshotError, UnsupportedRecipeError
from headrace.learner.learning import Learning
from headrace.learner.outcome_stream import OutcomeStream, first_offsets, outcome_stream
from headrace.learner.publishing import Publisher
from headrace.learner.recipes import Recipe, declared
from headrace.learner.retention import Retention
from headrace.learner.settings import LearnerSettings
from headrace.learner.versions import VersionBuilder, newest_of
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.health import Health
from headrace.platform.lifecycle import Deadline
from headrace.platform.logging import get_logger
from headrace.platform.pipelines import load_pipeline
from headrace.platform.signing import Signer
from headrace.platform.topics import Topics, check_topics, deployed_name
from headrace.v1.model_pb2 import ModelVersion

HEARTBEAT_S = 120.0


class LearnerService:
    """Learns outcomes and publishes versions.

    Args:
        settings: of the service.
        health: told what it waits for.

    Raises:
        PipelineLoadError: the pipeline cannot be loaded.
        UnsupportedRecipeError: the declared model has a part that cannot be saved exactly.
        KeyFileError: the signing key is not a key.
    """

    def __init__(self, settings: LearnerSettings, health: Health) -> None:
        self._settings = settings
        self._pipeline = load_pipeline(settings.pipeline)
        self._topics = Topics(deployed_name(self._pipeline.name, settings.namespace))
        features, numeric = self._pipeline.feature_names, self._pipeline.label.numeric
        self._recipes = [declared(model, features, numeric=numeric) for model in self._pipeline.models]
        for index, recipe in enumerate(self._recipes):
            for other, earlier in enumerate(self._recipes[:index]):
                if recipe.fingerprint == earlier.fingerprint:
                    names = [self._pipeline.models[one].name for one in (other, index)]
                    raise UnsupportedRecipeError(f"models {names[0]!r} and {names[1]!r} are one and the same recipe")
        self._signer = Signer.read(settings.signing_key)
        self._store = ArtifactStore(settings.artifacts)
        self._builder = VersionBuilder(
            self._topics.deployed, self._pipeline.model.decision.threshold, self._store, self._signer
        )
        self._leads = health.component("leadership")
        self._model = health.component("model")
        self._heartbeat = health.heartbeat("learning", HEARTBEAT_S)
        self._heartbeat.suspend()
        self._resources = contextlib.AsyncExitStack()
        self._log = get_logger()

    async def start(self) -> None:
        """Become the leader, take up the newest announced version, or publish the first one."""
        settings, topics, enter = self._settings, self._topics, self._resources.enter_async_context
        partitions = await check_topics(
            settings.kafka_bootstrap,
            topics.deployed,
            only=(topics.outcomes, topics.models, topics.control, topics.routes),
        )
        self._leads.starting("another learner leads; this one stands by")
        self._leadership = await enter(
            leadership.leadership(settings.kafka_bootstrap, topics, instance=settings.instance)
        )
        if not self._leadership.leads:
            self._log.info("standing by: another learner leads")
        await self._leadership.acquired()
        retention = Retention(
            self._store,
            self._signer,
            topics.deployed,
            keep=settings.keep_versions,
            lineage_days=settings.keep_lineage_days,
        )
        announces = await enter(announcer(settings.kafka_bootstrap, topics, retention))
        metrics.EPOCH.set(announces.epoch)
        self._leads.ready()
        self._cohort = await self._take_up(announces, partitions)
        self._publisher = Publisher(self._builder, announces, self._cohort)
        if announces.newest is None:
            # Before any outcome is read: until there are labels, this is what answers.
            await self._publisher.publish()
        self._stream: OutcomeStream = await enter(
            outcome_stream(settings.kafka_bootstrap, topics, self._cohort.next_offsets)
        )
        self._model.ready()

    async def run(self) -> None:
        """Learn and publish until cancelled."""
        settings = self._settings
        commands = self._leadership.commands(self._cohort.next_command)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._leadership.lost(), name="leadership")
                if settings.lockstep:
                    await modes.learn_in_lockstep(
                        self._stream, self._cohort, self._publisher, self._heartbeat, commands
                    )
                else:
                    tasks.create_task(modes.note_ignored_commands(commands), name="commands")
                    await modes.learn_as_outcomes_come(
                        self._stream,
                        self._cohort,
                        self._publisher,
                        self._heartbeat,
                        gather_s=settings.gather_s,
                        gather_limit=settings.gather_limit,
                        publish_interval_s=settings.publish_interval_s,
                        publish_min_outcomes=settings.publish_min_outcomes,
                        publish_max_outcomes=settings.publish_max_outcomes,
                    )
        except BaseExceptionGroup as group:
            # The first failure is the cause; the others are its consequence.
            raise group.exceptions[0] from group

    async def stop(self, deadline: Deadline) -> None:
        """Leave Kafka. What was learned since the last version is learned again by the successor."""
        async with asyncio.timeout(deadline.remaining()):
            await self._resources.aclose()

    async def _take_up(self, announces: Announcer, partitions: int) -> Cohort:
        pipeline = self._pipeline
        if announces.newest is None:
            first = await first_offsets(self._settings.kafka_bootstrap, self._topics, partitions)
            return self._cohort_of(
                [
                    Learning(recipe, pipeline.feature_names, pipeline.features_fingerprint, first)
                    for recipe in self._recipes
                ]
            )
        champion_recipe, *challengers = self._recipes
        # Where the champion is not among them, the newest version says what was declared.
        newest = newest_of(announces.announced, champion_recipe.fingerprint) or announces.newest
        champion = await asyncio.to_thread(self._restore, newest, champion_recipe)
        if len(champion.next_offsets) != partitions:
            raise SnapshotError(
                f"version {newest.version} was learned from {len(champion.next_offsets)} partitions of "
                f"{self._topics.outcomes}, which has {partitions} now: use a new namespace"
            )
        learnings = [champion]
        for recipe in challengers:
            version = newest_of(announces.announced, recipe.fingerprint)
            if version is not None:
                learnings.append(await asyncio.to_thread(self._restore, version, recipe))
                continue
            # One that is new begins where the champion is: of what came before, part may be gone.
            begun = Learning(recipe, pipeline.feature_names, pipeline.features_fingerprint, champion.next_offsets)
            begun.next_command = champion.next_command
            learnings.append(begun)
        cohort = self._cohort_of(learnings)
        for member in cohort.members:
            self._log.info(
                "model taken up",
                recipe=member.name,
                challenger=member.challenger,
                learned_count=member.learning.learned_count,
                next_offsets=member.learning.next_offsets,
                next_command=member.learning.next_command,
            )
        return cohort

    def _cohort_of(self, learnings: Sequence[Learning]) -> Cohort:
        return Cohort(
            [
                Member(model.name, learning, challenger=index > 0)
                for index, (model, learning) in enumerate(zip(self._pipeline.models, learnings, strict=True))
            ]
        )

    def _restore(self, version: ModelVersion, recipe: Recipe) -> Learning:
        what = f"snapshot of version {version.version}"
        state = snapshot.decode(signed_artifacts.get(self._store, self._signer.verifier(), version.snapshot, what))
        if state.version != version.version:
            raise SnapshotError(f"{what} holds version {state.version}")
        return Learning.restore(recipe, state, self._pipeline.features_fingerprint)
