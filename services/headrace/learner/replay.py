"""Rebuild a version from the recorded order of its outcomes, and compare it with what was announced, to the bit."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.learner import order_log, signed_artifacts, snapshot
from headrace.learner.announcements import read_announced
from headrace.learner.errors import LearnerError, OutcomesLostError, RecipeChangedError
from headrace.learner.examples import Example, OutcomeRecord, decode
from headrace.learner.merging import Share, merge
from headrace.learner.order_log import OrderLog
from headrace.learner.outcome_stream import outcome_stream
from headrace.learner.recipes import Recipe, declared
from headrace.learner.versions import exported
from headrace.pipeline import Pipeline
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import Verifier
from headrace.platform.topics import Topics
from headrace.v1.model_pb2 import ModelVersion


@dataclass(frozen=True)
class Replay:
    """What a replay gave.

    Attributes:
        version: the version that was replayed.
        recipe: name of the model in the pipeline.
        equal: whether the rebuilt model is that of the snapshot, to the bit.
        onnx_equal: whether it exports to the announced ONNX file, byte for byte.
        logs: order logs that lead to the version.
        from_history: events of a history that the version was learned from before; not learned again.
        learned_count: outcomes learned in the replay, and these events.
        recorded_count: outcomes that the version says it learned.
        duplicates: positions that are recorded more than once.
        rebuilt: state of the rebuilt model; its digest where it is pickled.
        recorded: the same of the model in the snapshot.
    """

    version: str
    recipe: str
    equal: bool
    onnx_equal: bool
    logs: int
    from_history: int
    learned_count: int
    recorded_count: int
    duplicates: int
    rebuilt: Any
    recorded: Any

    @property
    def same(self) -> bool:
        """Whether the version is what its order gives, and learned each outcome once."""
        return self.equal and self.onnx_equal and not self.duplicates and self.learned_count == self.recorded_count


async def replay(
    version: str,
    *,
    bootstrap: str,
    topics: Topics,
    pipeline: Pipeline,
    store: ArtifactStore,
    verifier: Verifier,
    progress_timeout_s: float = 30.0,
) -> Replay:
    """Learn the outcomes of a version again from the untrained recipe, in the recorded order.

    The order logs are followed from the version back to the first. All outcomes must still be in the topic.

    Args:
        version: name of an announced version, "000012".
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        pipeline: its declaration.
        store: where the artifacts are.
        verifier: of the learner's key.
        progress_timeout_s: how long to wait for the next outcome, in seconds.

    Raises:
        LearnerError: there is no such version; names those there are.
        RecipeChangedError: the pipeline declares no model of this recipe, or other features.
        SnapshotError: an artifact is missing, damaged, or not signed by the learner.
        OutcomesLostError: outcomes of the version are not in the topic any more.
        KafkaUnavailable: Kafka does not answer.
    """
    announced = await read_announced(bootstrap, topics)
    found = next((one for one in announced if one.version == version), None)
    if found is None:
        kept = f"{announced[0].version} to {announced[-1].version}" if announced else "none"
        raise LearnerError(f"version {version!r} is not announced; kept are {kept}")
    state = snapshot.decode(signed_artifacts.get(store, verifier, found.snapshot, f"snapshot of version {version}"))
    logs = await asyncio.to_thread(_chain, found, store, verifier)
    name, recipe = _recipe_of(found, pipeline)
    before = 0
    if logs[0].log.base is not None:
        base = snapshot.decode(
            signed_artifacts.get(store, verifier, logs[0].log.base, f"snapshot of version {logs[0].log.version}")
        )
        recipe.restore(base.model)
        before = base.progress.learned_count
    learned = before + await _learn_again(
        recipe, logs, bootstrap, topics, pipeline, state.progress.first_offsets, progress_timeout_s
    )
    positions = np.concatenate(
        [np.stack([one.partitions.astype(np.int64), one.offsets], axis=1) for log in logs for one in log.whole]
    )
    rebuilt, recorded = recipe.comparable(recipe.state()), recipe.comparable(state.model)
    onnx = await asyncio.to_thread(exported, recipe.copy().model, topics.deployed, state)
    return Replay(
        version=version,
        recipe=name,
        equal=rebuilt == recorded,
        onnx_equal=hashlib.sha256(onnx).digest() == found.onnx.sha256,
        logs=len(logs),
        from_history=before,
        learned_count=learned,
        recorded_count=found.learned_count,
        duplicates=len(positions) - len(np.unique(positions, axis=0)),
        rebuilt=rebuilt,
        recorded=recorded,
    )


def _recipe_of(version: ModelVersion, pipeline: Pipeline) -> tuple[str, Recipe]:
    """Name and fresh recipe of the model that made a version."""
    if version.features_fingerprint != pipeline.features_fingerprint:
        raise RecipeChangedError(
            f"version {version.version} takes features {version.features_fingerprint:016x}, the pipeline declares "
            f"{pipeline.features_fingerprint:016x}: declare the former features to replay it"
        )
    for model in pipeline.models:
        recipe = declared(model, pipeline.feature_names, numeric=pipeline.label.numeric)
        if recipe.fingerprint == version.recipe_fingerprint:
            return model.name, recipe
    raise RecipeChangedError(
        f"version {version.version} was made by recipe {version.recipe_fingerprint[:16]}, which is none of the "
        f"pipeline's models ({', '.join(model.name for model in pipeline.models)}): declare it to replay the version"
    )


@dataclass(frozen=True)
class _Step:
    """What leads from one version to the next.

    Attributes:
        log: its order log.
        shards: the order logs that it was merged from; empty where it was not.
    """

    log: OrderLog
    shards: tuple[OrderLog, ...]

    @property
    def whole(self) -> tuple[OrderLog, ...]:
        """The logs that hold positions."""
        return self.shards or (self.log,)


def _chain(version: ModelVersion, store: ArtifactStore, verifier: Verifier) -> list[_Step]:
    """The order logs that lead to a version from nothing, or from a history; first one first."""
    logs: list[_Step] = []
    artifact, name = version.order, version.version
    while True:
        log = order_log.decode(signed_artifacts.get(store, verifier, artifact, f"order log of version {name}"))
        logs.append(
            _Step(
                log,
                tuple(
                    order_log.decode(
                        signed_artifacts.get(store, verifier, one.order, f"order log {one.shard} of version {name}")
                    )
                    for one in log.shards
                ),
            )
        )
        if log.parent_order is None or log.base is not None:
            return logs[::-1]
        artifact, name = log.parent_order, log.parent


async def _learn_again(
    recipe: Recipe,
    steps: list[_Step],
    bootstrap: str,
    topics: Topics,
    pipeline: Pipeline,
    first_offsets: tuple[int, ...],
    progress_timeout_s: float,
) -> int:
    learned = 0
    async with outcome_stream(bootstrap, topics, first_offsets) as stream:
        for step in steps:
            if not any(len(log.offsets) for log in step.whole):
                continue
            ends = list(first_offsets)
            for log in step.whole:
                for partition in np.unique(log.partitions).tolist():
                    ends[partition] = int(log.offsets[log.partitions == partition].max()) + 1
            try:
                async with asyncio.timeout(progress_timeout_s):
                    records = await stream.read_below(ends, lambda _: None)
            except TimeoutError as error:
                raise OutcomesLostError(
                    f"outcomes of version {step.log.version} up to {ends} are not in the topic"
                ) from error
            # What is left in it was read and not learned.
            read: dict[tuple[int, int], OutcomeRecord] = {(one.partition, one.offset): one for one in records}
            if not step.shards:
                learned += _learn_log(recipe, step.log, read, pipeline)
                continue
            begun, shares = recipe.state(), []
            for log in step.shards:
                recipe.restore(begun)
                count = _learn_log(recipe, log, read, pipeline)
                shares.append(Share(recipe.state(), count))
                learned += count
            merge(recipe, begun, shares, pipeline.feature_names)
    return learned


def _learn_log(recipe: Recipe, log: OrderLog, read: dict[tuple[int, int], OutcomeRecord], pipeline: Pipeline) -> int:
    """Learn the outcomes of a log in its order; gives how many."""
    try:
        ordered = [read.pop(at) for at in zip(log.partitions.tolist(), log.offsets.tolist(), strict=True)]
    except KeyError as error:
        raise OutcomesLostError(f"outcome {error.args[0]} of version {log.version} is not there") from error
    examples: list[Example] = decode(
        ordered,
        pipeline.features_fingerprint,
        len(pipeline.feature_names),
        absence=recipe.knows_absence,
        numeric=recipe.numeric,
        reverse=recipe.reverses,
    )
    recipe.learn(
        [one.row for one in examples],
        [one.label for one in examples],
        pipeline.feature_names,
        [one.event_id for one in examples],
        [one.replaced for one in examples] if recipe.reverses else None,
    )
    return len(examples)
