"""The leader of learners that share the outcomes: after each round it merges what they made into the next version."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from headrace.learner import metrics, sharded_metrics
from headrace.learner.announcements import Announcer
from headrace.learner.cohort import Cohort, Member
from headrace.learner.errors import SnapshotError
from headrace.learner.leadership import PlacedCommand
from headrace.learner.learning import Learning
from headrace.learner.merging_progress import merge_snapshots
from headrace.learner.order_log import OrderLog, ShardOrder
from headrace.learner.outcome_stream import first_offsets
from headrace.learner.publishing import Publisher
from headrace.learner.recipes import Recipe
from headrace.learner.sharded_deployment import ShardedDeployment
from headrace.learner.sharded_learning import own_partitions, shard_version
from headrace.learner.sharded_round import Round
from headrace.learner.snapshot import Snapshot
from headrace.learner.versions import VersionBuilder, newest_of, next_versions
from headrace.platform.health import Heartbeat
from headrace.platform.logging import get_logger
from headrace.v1.model_pb2 import Artifact, ModelVersion, ShardSnapshot

POLL_S = 1.0


class MergedLearning(Learning):
    """The state of a version that was merged.

    Attributes:
        shards: what it was merged from.
    """

    shards: tuple[ShardOrder, ...] = ()

    def order(self, version: str, parent: str, parent_order: Artifact | None) -> OrderLog:
        """Instead of positions, the order logs of the shards."""
        return replace(super().order(version, parent, parent_order), shards=self.shards)


class Merger:
    """Merges rounds and announces them.

    Args:
        deployment: what all learners have in common.
        recipe: the pipeline's model, for the merger alone.
        announcer: announces versions.
        heartbeat: beaten each time round.
    """

    def __init__(
        self, deployment: ShardedDeployment, recipe: Recipe, announcer: Announcer, heartbeat: Heartbeat
    ) -> None:
        self._deployment = deployment
        self._settings = deployment.settings
        self._topics = deployment.topics
        self._pipeline = deployment.pipeline
        self._recipe = recipe
        self._announcer = announcer
        self._heartbeat = heartbeat
        self._builder = VersionBuilder(
            self._topics.deployed, self._pipeline.model.decision.threshold, deployment.store, deployment.signer
        )
        self._log = get_logger()

    async def take_up(self, partitions: int) -> int:
        """Take up the newest version, or publish the first one.

        Args:
            partitions: of `outcomes`.

        Returns:
            Offset in `control` of the first command that is not handled.

        Raises:
            RecipeChangedError: the newest version is of another recipe or of other features.
            SnapshotError: its snapshot is not what its announcement says.
        """
        pipeline, announcer = self._pipeline, self._announcer
        if announcer.newest is None:
            first = await first_offsets(self._settings.kafka_bootstrap, self._topics, partitions)
            untrained = Learning(self._recipe, pipeline.feature_names, pipeline.features_fingerprint, first)
            member = Member(pipeline.model.name, untrained, challenger=False)
            await Publisher(self._builder, announcer, Cohort([member])).publish()
        newest = newest_of(announcer.announced, self._recipe.fingerprint) or announcer.newest
        if newest is None:
            raise SnapshotError(f"{self._topics.models} lost the version that was just announced")
        self._version, self._base = newest, await asyncio.to_thread(self._deployment.snapshot_of, newest)
        Learning.restore(self._recipe, self._base, pipeline.features_fingerprint)  # refuses what does not fit
        if len(self._base.progress.next_offsets) != partitions:
            raise SnapshotError(
                f"version {newest.version} was learned from {len(self._base.progress.next_offsets)} partitions of "
                f"{self._topics.outcomes}, which has {partitions} now: use a new namespace"
            )
        self._next_command = self._base.progress.next_command
        return self._next_command

    async def merge_rounds(self, commands: asyncio.Queue[PlacedCommand]) -> None:
        """Merge round after round, without end.

        Args:
            commands: those of `control` from the offset that `take_up` gave, in order.
        """
        while True:
            current = Round(self._version.version, self._settings.shards, self._settings.shard_wait_s)
            while (left := current.ends_in(time.monotonic())) is None or left > 0:
                self._heartbeat.beat()
                try:
                    async with asyncio.timeout(POLL_S if left is None else min(left, POLL_S)):
                        placed = await commands.get()
                except TimeoutError:
                    continue
                self._next_command = placed.offset + 1
                self._take(placed, current)
            await self._end(current)

    def _take(self, placed: PlacedCommand, current: Round) -> None:
        command = placed.command
        if not command.HasField("merge"):
            self._log.warning(
                "command ignored: HEADRACE_LEARNER_SHARDS is above 1",
                command_id=command.command_id,
                control_offset=placed.offset,
            )
        elif not current.take(command.merge, time.monotonic()):
            self._log.debug("not of this round", command_id=command.command_id, base=current.base)

    async def _end(self, current: Round) -> None:
        """Merge what has come, and announce it."""
        began = time.monotonic()
        loaded: list[tuple[ShardSnapshot, Snapshot]] = []
        for report in current.reports:
            try:
                loaded.append((report, await asyncio.to_thread(self._load_shard, report)))
            except SnapshotError as error:
                self._log.error("a shard is left out", shard=report.shard, base=report.base, reason=str(error))
                current.refuse(report)
        if not any(report.learned_count for report, _ in loaded):
            return
        version = await asyncio.to_thread(self._build, loaded, current.missing)
        await self._announcer.announce([version], self._next_command)
        self._version, self._base = version, await asyncio.to_thread(self._deployment.snapshot_of, version)
        took_s = time.monotonic() - began
        metrics.VERSIONS.inc()
        metrics.PUBLISH.observe(took_s)
        metrics.MODEL_TIME.set(version.model_time_us / 1e6)
        for shard in current.missing:
            sharded_metrics.MISSED.labels(str(shard)).inc()
        self._log.info(
            "version announced",
            version=version.version,
            recipe=version.recipe,
            learned_count=version.learned_count,
            learned={report.shard: report.learned_count for report, _ in loaded},
            missing_shards=current.missing,
            epoch=version.learner_epoch,
            took_s=round(took_s, 4),
        )

    def _build(self, loaded: Sequence[tuple[ShardSnapshot, Snapshot]], missing: Sequence[int]) -> ModelVersion:
        merged = merge_snapshots(self._recipe, self._base, [state for _, state in loaded], self._next_command)
        learning = MergedLearning.restore(self._recipe, merged, self._pipeline.features_fingerprint)
        learning.shards = tuple(
            ShardOrder(report.shard, report.order, report.snapshot, report.learned_count) for report, _ in loaded
        )
        version = self._builder.build(
            Member(self._pipeline.model.name, learning, challenger=False),
            next_versions(self._announcer.newest, 1)[0],
            self._version,
            self._announcer.epoch,
            time.time_ns() // 1000,
        )
        version.shards.extend(report for report, _ in loaded)
        version.missing_shards.extend(missing)
        return version

    def _load_shard(self, report: ShardSnapshot) -> Snapshot:
        name, base = shard_version(report.base, report.shard), self._base
        state = self._deployment.load(report.snapshot, f"snapshot {name}", name)
        own = own_partitions(report.shard, report.shards, len(base.progress.next_offsets))
        if (state.parent, state.recipe_fingerprint, state.features_fingerprint) != (
            base.version,
            base.recipe_fingerprint,
            base.features_fingerprint,
        ):
            raise SnapshotError(f"snapshot {name} does not continue version {base.version}")
        for partition, (before, after) in enumerate(
            zip(base.progress.next_offsets, state.progress.next_offsets, strict=True)
        ):
            if after < before or (after > before and partition not in own):
                raise SnapshotError(f"snapshot {name} read partition {partition} from {before} to {after}")
        if state.progress.learned_count - base.progress.learned_count != report.learned_count:
            raise SnapshotError(f"snapshot {name} learned another number of outcomes than it says")
        return state
