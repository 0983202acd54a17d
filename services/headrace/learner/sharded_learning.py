"""One of several learners that share the outcomes: it learns its partitions, from one version to the next.

A version is the only truth: what a learner has made counts when an announced version names it. Until then nobody else
goes by it, and where a version leaves it out, the same outcomes are learned again from that version. So a crash
anywhere, or a second process under the same number, changes no weight.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from headrace.learner import metrics, sharded_metrics, snapshot, version_records
from headrace.learner import order_log as order_logs
from headrace.learner.cohort import Cohort, Member
from headrace.learner.learning import Learning
from headrace.learner.outcome_stream import OutcomeStream, outcome_stream
from headrace.learner.recipes import Recipe
from headrace.learner.sharded_deployment import ShardedDeployment
from headrace.learner.sharded_versions import VersionTail
from headrace.platform import kafka
from headrace.platform.health import Heartbeat
from headrace.platform.logging import get_logger
from headrace.v1.model_pb2 import LearnerCommand, ModelVersion, OffsetRange, ShardSnapshot

POLL_S = 0.5
REMIND_S = 30.0


def shard_version(base: str, shard: int) -> str:
    """Name of what a learner made from a version on."""
    return f"{base}-shard-{shard}"


def own_partitions(shard: int, shards: int, partitions: int) -> list[int]:
    """The partitions of `outcomes` that a learner reads."""
    return list(range(shard, partitions, shards))


class ShardLearner:
    """Learns a share of the outcomes.

    Args:
        deployment: what all learners have in common.
        recipe: the pipeline's model, for this learner alone.
        heartbeat: beaten each time round.
    """

    def __init__(self, deployment: ShardedDeployment, recipe: Recipe, heartbeat: Heartbeat) -> None:
        self._deployment = deployment
        self._settings = deployment.settings
        self._topics = deployment.topics
        self._recipe = recipe
        self._heartbeat = heartbeat
        self._shard = int(self._settings.instance)
        self._log = get_logger()

    async def run(self, first: ModelVersion, tail: VersionTail, producer: Any) -> None:
        """Learn from a version on, without end.

        Args:
            first: the newest version.
            tail: gives those that come.
            producer: for `control`.
        """
        base = first
        while True:
            cohort = await asyncio.to_thread(self._take_up, base)
            own = own_partitions(self._shard, self._settings.shards, len(cohort.next_offsets))
            async with outcome_stream(
                self._settings.kafka_bootstrap, self._topics, cohort.next_offsets, only=own
            ) as stream:
                goes_on = True
                while goes_on:
                    base, goes_on = await self._round(stream, own, base, cohort, tail, producer)
                    if goes_on:
                        cohort = await asyncio.to_thread(self._take_up, base)

    async def _round(
        self,
        stream: OutcomeStream,
        own: list[int],
        base: ModelVersion,
        cohort: Cohort,
        tail: VersionTail,
        producer: Any,
    ) -> tuple[ModelVersion, bool]:
        """Learn until the next version; whether it has all that was read, so that reading goes on where it is."""
        settings = self._settings
        began = said = time.monotonic()
        report: ShardSnapshot | None = None
        read = 0  # since the report, or since the base where there is none
        while True:
            self._heartbeat.beat()
            waits = report is not None and report.learned_count > 0
            newer = await tail.newer(POLL_S if waits else 0)
            if newer is not None:
                return newer, await self._has_all(newer, report, read, said)
            if report is not None and waits:
                if time.monotonic() - said > REMIND_S:
                    self._log.warning("waiting for the next version", base=base.version, learned=report.learned_count)
                    said = time.monotonic()
                    await self._send(producer, report)
                continue
            records = await stream.gather(settings.gather_s, settings.gather_limit)
            if records:
                read += len(records)
                before = cohort.champion.learned_count
                ignored = await asyncio.to_thread(cohort.learn, records)
                metrics.LEARNED.inc(cohort.champion.learned_count - before)
                for reason, count in ignored.items():
                    metrics.IGNORED.labels(reason).inc(count)
            offsets = list(cohort.next_offsets)
            for partition, position in zip(own, await stream.positions(), strict=True):
                offsets[partition] = position
            cohort.advance(offsets)
            learned = cohort.learned_since_version
            due = time.monotonic() - began >= settings.publish_interval_s
            enough = 0 < settings.publish_max_outcomes <= learned * settings.shards
            # One that has learned nothing says so once, so that nobody waits for it.
            if (due or enough) and (learned or report is None):
                report, read, said = await asyncio.to_thread(self._cut, cohort, base, own), 0, time.monotonic()
                await self._send(producer, report)

    async def _has_all(self, newer: ModelVersion, report: ShardSnapshot | None, read: int, said: float) -> bool:
        """Whether a version has all that was read here; what it leaves out is of no use any more."""
        named = report is not None and any(one.snapshot.sha256 == report.snapshot.sha256 for one in newer.shards)
        if named:
            sharded_metrics.WAITED.observe(time.monotonic() - said)
        elif report is not None:
            for artifact in (report.snapshot, report.order):
                await asyncio.to_thread(self._deployment.store.delete, artifact.uri)
            read += report.learned_count
        if read:
            sharded_metrics.LEFT_OUT.inc()
            self._log.info("learning again what the version leaves out", version=newer.version, read=read)
        # A report that is not named may still have read outcomes that are ignored.
        return not read and (named or report is None)

    def _take_up(self, base: ModelVersion) -> Cohort:
        pipeline = self._deployment.pipeline
        state = self._deployment.snapshot_of(base)
        learning = Learning.restore(self._recipe, state, pipeline.features_fingerprint)
        return Cohort([Member(pipeline.model.name, learning, challenger=False)])

    def _cut(self, cohort: Cohort, base: ModelVersion, own: list[int]) -> ShardSnapshot:
        """Store what was learned since the base."""
        learning, version = cohort.champion, shard_version(base.version, self._shard)
        state = learning.snapshot(version, base.version)
        order = learning.order(version, base.version, base.order)
        # In the folder of the version, with whose lineage it leaves.
        name = f"{version_records.folder(self._topics.deployed, base.version)}/shard-{self._shard}"
        ends, put = state.progress.next_offsets, self._deployment.put
        return ShardSnapshot(
            shard=self._shard,
            shards=self._settings.shards,
            base=base.version,
            snapshot=put(name, snapshot.suffix(state), snapshot.encode(state)),
            order=put(name, ".log", order_logs.encode(order)),
            learned=[
                OffsetRange(partition=one.partition, first=one.end, end=ends[one.partition])
                for one in base.learned
                if one.partition in own
            ],
            learned_count=learning.learned_since_version,
        )

    async def _send(self, producer: Any, report: ShardSnapshot) -> None:
        command = LearnerCommand(command_id=shard_version(report.base, report.shard), merge=report)
        await kafka.send(producer, self._topics.control, command.SerializeToString(), partition=0)
