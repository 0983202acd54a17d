"""Learning a history before a pipeline goes live: the learner goes on from what it gave."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.learner.announcements import announcer
from headrace.learner.cohort import Cohort, Member
from headrace.learner.errors import LearnerError
from headrace.learner.learning import Learning
from headrace.learner.outcome_stream import first_offsets
from headrace.learner.prequential import Labels
from headrace.learner.recipes import declared
from headrace.learner.retention import Retention
from headrace.learner.versions import VersionBuilder, next_versions
from headrace.pipeline import Pipeline
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import Signer
from headrace.platform.topics import Topics, check_topics
from headrace.v1.model_pb2 import ModelVersion

ORIGIN = "bootstrap"


class PipelineLiveError(LearnerError):
    """The pipeline has versions already: a history can only be learned before the first."""


class HistoryRows(Protocol):
    """Labelled events, in the order (label time, event id)."""

    @property
    def rows(self) -> NDArray[np.float32]:
        """Features as of each event's time, float32 [n, features]."""

    @property
    def labels(self) -> Labels:
        """Labels, bool [n], or float64 where they are numbers."""

    @property
    def event_ids(self) -> Sequence[str]:
        """Ids, n."""

    @property
    def label_times_us(self) -> NDArray[np.int64]:
        """When the labels were known, int64 [n], microseconds since 1970-01-01 UTC."""


async def check_not_live(bootstrap: str, topics: Topics, announced: Sequence[ModelVersion]) -> int:
    """Refuse a pipeline that has versions; gives the number of partitions of `outcomes`.

    Raises:
        PipelineLiveError: it has.
        KafkaUnavailable: no broker answers in time.
    """
    partitions = await check_topics(bootstrap, topics.deployed, only=(topics.outcomes, topics.models, topics.control))
    if announced:
        raise PipelineLiveError(
            f"{topics.deployed} is live: its newest version is {announced[-1].version}. A history is learned before "
            "the learner first starts; use a new namespace"
        )
    return partitions


async def learn_history(
    history: Iterable[HistoryRows],
    *,
    bootstrap: str,
    topics: Topics,
    pipeline: Pipeline,
    store: ArtifactStore,
    signer: Signer,
) -> list[ModelVersion]:
    """Learn a history with every model of the pipeline, and announce what it gave.

    Announced are the untrained version and the one that learned the history, of each model, all in one transaction; the
    latter say `bootstrap` as their origin.

    Args:
        history: the rows, all in one order.
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        pipeline: its declaration.
        store: where files go.
        signer: signs them.

    Returns:
        The versions that learned the history, the champion's first.

    Raises:
        PipelineLiveError: the pipeline has versions already.
        LearnerError: a version is not one that may be announced.
        KafkaUnavailable: no broker answers in time.
    """
    names, fingerprint = pipeline.feature_names, pipeline.features_fingerprint
    async with announcer(bootstrap, topics, Retention(store, signer, topics.deployed)) as announces:
        partitions = await check_not_live(bootstrap, topics, announces.announced)
        first = await first_offsets(bootstrap, topics, partitions)
        recipes = [declared(model, names, numeric=pipeline.label.numeric) for model in pipeline.models]
        cohort = Cohort(
            [
                Member(model.name, Learning(recipe, names, fingerprint, first), challenger=index > 0)
                for index, (model, recipe) in enumerate(zip(pipeline.models, recipes, strict=True))
            ]
        )
        builder = VersionBuilder(topics.deployed, pipeline.model.decision.threshold, store, signer)
        untrained = await asyncio.to_thread(_versions, builder, cohort, [], announces.epoch)
        for part in history:
            for member in cohort.members:
                await asyncio.to_thread(
                    member.learning.learn_history, part.rows, part.labels, part.event_ids, part.label_times_us
                )
        trained = await asyncio.to_thread(_versions, builder, cohort, untrained, announces.epoch)
        await announces.announce([*untrained, *trained], 0)
    return trained


def _versions(
    builder: VersionBuilder, cohort: Cohort, parents: Sequence[ModelVersion], epoch: int
) -> list[ModelVersion]:
    count = len(cohort.members)
    names = next_versions(parents[-1] if parents else None, count)
    now_us = time.time_ns() // 1000
    known: list[ModelVersion | None] = [*parents] or [None] * count
    return [
        builder.build(member, name, parent, epoch, now_us, ORIGIN if parent is not None else "")
        for member, name, parent in zip(cohort.members, names, known, strict=True)
    ]
