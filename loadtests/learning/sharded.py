"""Learners that share a stream beside one learner, in quality and in CPU time: `make bench-sharded`.

Quality is that of merged models on the payments of the Fraud Detection Handbook (`HANDBOOK=file` names the table of its
published features; without it, rows of a logistic model). CPU time is that of the code of the learner: what an outcome
costs a shard, and what a round costs beside the outcomes, from the shard's snapshot to the next version taken up. From
both follows how many outcomes a second K shards on K cores learn.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path

from headrace.learner.announcements import Announcer
from headrace.learner.cohort import Cohort, Member
from headrace.learner.examples import OutcomeRecord
from headrace.learner.learning import Learning
from headrace.learner.recipes import Recipe, declared
from headrace.learner.retention import Retention
from headrace.learner.settings import LearnerSettings
from headrace.learner.sharded_deployment import ShardedDeployment
from headrace.learner.sharded_learning import ShardLearner, own_partitions
from headrace.learner.sharded_merger import Merger
from headrace.learner.versions import VersionBuilder
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.health import Health
from headrace.platform.pipelines import load_pipeline
from headrace.platform.signing import Signer, create_key_pair
from headrace.platform.topics import Topics
from headrace.v1.model_pb2 import ModelVersion, ShardSnapshot
from headrace.v1.prediction_pb2 import Outcome
from loadtests import bench
from loadtests.figures import Figure, figure
from loadtests.learning.learner import GATHER, outcomes
from loadtests.learning.sharded_quality import (
    LEARNING_RATE,
    Plan,
    Table,
    check_against_recipe,
    handbook,
    measured,
    synthetic,
)

SHARDS = (2, 4, 8)
ROUNDS = (1_000, 10_000, 100_000)
PARTITIONS = 8
INTERVAL_S = 3.0
HANDBOOK = Path("../shared/data/handbook/handbook_features_published.parquet")


def qualities(table: Table) -> list[Figure]:
    """AUC, average precision and log loss of every plan, beside one learner that publishes as often."""
    check_against_recipe(table)
    figures = []
    for rows in ROUNDS:
        alone = measured(table, Plan(1, rows))
        plans = [
            *((f"{shards} shards", Plan(shards, rows)) for shards in SHARDS),
            *((f"{shards} shards, units of the features", Plan(shards, rows, "features")) for shards in SHARDS),
            *(
                (f"{shards} shards, rate × {shards}", Plan(shards, rows, learning_rate=shards * LEARNING_RATE))
                for shards in SHARDS
            ),
        ]
        for name, plan in plans:
            merged = measured(table, plan)
            for measure in ("auc", "average_precision", "log_loss"):
                figures.append(
                    figure(
                        f"{measure}, {name}, rounds of {rows:,}",
                        getattr(merged, measure) or 0.0,
                        "",
                        better="lower" if measure == "log_loss" else "higher",
                        control=("one learner", getattr(alone, measure) or 0.0),
                    )
                )
    for shards in SHARDS:
        slower = measured(table, Plan(1, 10_000, learning_rate=LEARNING_RATE / shards))
        merged = measured(table, Plan(shards, 10_000))
        figures.append(
            figure(
                f"auc, {shards} shards, rounds of 10,000, beside one learner at rate / {shards}",
                merged.auc or 0.0,
                "",
                control=("one learner, slower", slower.auc or 0.0),
            )
        )
    return figures


def costs(rows_a_shard: int) -> list[Figure]:
    """CPU time of rounds of K shards, and of one learner that publishes as often.

    An outcome takes the same way in all of them, so its cost is the mean over all that were learned.
    """
    _round(2, GATHER)  # what is done for the first time is not measured
    measured_s = {shards: _round(shards, rows_a_shard) for shards in (1, *SHARDS)}
    outcome_s = sum(shards * each for shards, (each, _) in measured_s.items()) / sum(measured_s)
    rate = {shards: shards * (1 - round_s / INTERVAL_S) / outcome_s for shards, (_, round_s) in measured_s.items()}
    figures = [figure("an outcome", outcome_s * 1e6, "µs of CPU", better="lower")]
    for shards in SHARDS:
        figures += [
            figure(
                f"{shards} shards: a round beside its outcomes",
                measured_s[shards][1] * 1000,
                "ms of CPU",
                better="lower",
                control=("one learner's version", measured_s[1][1] * 1000),
            ),
            figure(
                f"{shards} shards on {shards} cores, a round every {INTERVAL_S:g} s",
                rate[shards],
                "outcomes/s",
                control=("one learner", rate[1]),
            ),
        ]
    return figures


def _round(shards: int, rows: int) -> tuple[float, float]:
    """CPU seconds of an outcome, and of what comes beside the outcomes of a round, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        return _Stage(Path(folder), shards).round(rows)


class _Stage:
    """The parts of a learner without Kafka."""

    def __init__(self, folder: Path, shards: int) -> None:
        self.pipeline = load_pipeline("pipelines/fraud.py")
        self.keys = create_key_pair(folder / "keys")
        self.signer, self.store = Signer.read(self.keys.private), ArtifactStore(folder / "artifacts")
        self.topics, self.shards = Topics("bench"), shards
        self.builder = VersionBuilder("bench", 0.5, self.store, self.signer)

    def round(self, rows: int) -> tuple[float, float]:
        pipeline = self.pipeline
        learning = Learning(self.recipe(), pipeline.feature_names, pipeline.features_fingerprint, (0,) * PARTITIONS)
        alone = Cohort([Member(pipeline.model.name, learning, challenger=False)])
        version = self.builder.build(alone.members[0], "000000", None, 1, 0)
        records = self.records(rows * self.shards)
        if self.shards == 1:
            outcome_s = self.learn(alone, records) / len(records)
            began = time.process_time()
            self.builder.build(alone.members[0], "000001", version, 1, 0)
            return outcome_s, time.process_time() - began
        learned_s, round_s, reports = 0.0, 0.0, []
        learner = None
        for shard in range(self.shards):
            learner = self.shard(shard)
            cohort = learner._take_up(version)
            own = own_partitions(shard, self.shards, PARTITIONS)
            learned_s += self.learn(cohort, [one for one in records if one.partition in own])
            began = time.process_time()
            reports.append(learner._cut(cohort, version, own))
            round_s = time.process_time() - began
        # Shards cut and take up beside one another; the merger comes between.
        began = time.process_time()
        merged = self.merge(version, reports)
        assert learner is not None
        learner._take_up(merged)
        return learned_s / len(records), round_s + time.process_time() - began

    def merge(self, version: ModelVersion, reports: list[ShardSnapshot]) -> ModelVersion:
        retention = Retention(self.store, self.signer, "bench")
        announcer = Announcer(None, self.topics, [version], retention, None)  # type: ignore[arg-type]
        heartbeat = Health("bench").heartbeat("merging", 60)
        merger = Merger(self.deployment(0), self.recipe(), announcer, heartbeat)
        merger._version, merger._base, merger._next_command = version, merger._deployment.snapshot_of(version), 0
        return merger._build([(one, merger._load_shard(one)) for one in reports], [])

    def shard(self, number: int) -> ShardLearner:
        return ShardLearner(self.deployment(number), self.recipe(), Health("bench").heartbeat("learning", 60))

    def recipe(self) -> Recipe:
        return declared(self.pipeline.model, self.pipeline.feature_names)

    def deployment(self, number: int) -> ShardedDeployment:
        settings = LearnerSettings(shards=self.shards, instance=str(number), signing_key=self.keys.private)
        return ShardedDeployment(settings, self.topics, self.pipeline, self.store, self.signer)

    def records(self, count: int) -> list[OutcomeRecord]:
        """Outcomes of the pipeline's features."""
        made = []
        for number, record in enumerate(outcomes(count)):
            outcome = Outcome.FromString(record.value)
            outcome.prediction.features_fingerprint = self.pipeline.features_fingerprint
            made.append(
                OutcomeRecord(
                    number % PARTITIONS, number // PARTITIONS, record.append_time_us, outcome.SerializeToString()
                )
            )
        return made

    @staticmethod
    def learn(cohort: Cohort, records: list[OutcomeRecord]) -> float:
        gc.collect()
        began = time.process_time()
        for start in range(0, len(records), GATHER):
            cohort.learn(records[start : start + GATHER])
        return time.process_time() - began


def main() -> int:
    """Measure, print, and write `.run/bench/sharded.json`."""
    parser = argparse.ArgumentParser(description="Learners that share a stream, beside one.")
    parser.add_argument("--quick", action="store_true", help="few rows: a check that it works, not figures")
    parser.add_argument("--source", type=Path, default=HANDBOOK, help="the handbook's published features")
    options = parser.parse_args()

    async def quality_part() -> list[Figure]:
        if options.source.exists():
            return qualities(handbook(options.source))
        print(f"{options.source} is missing: rows of a logistic model instead", flush=True)
        return qualities(synthetic(20_000 if options.quick else 1_300_000))

    async def cost_part() -> list[Figure]:
        return costs(2_000 if options.quick else 20_000)

    return bench.run(
        "sharded", {"costs": cost_part, "quality": quality_part}, packages=("river", "numpy"), controls=False
    )


if __name__ == "__main__":
    raise SystemExit(main())
