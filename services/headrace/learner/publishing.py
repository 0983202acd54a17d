"""Publishing versions: build them, announce them, note that they are out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.learner import metrics
from headrace.learner.announcements import Announcer
from headrace.learner.cohort import Cohort
from headrace.learner.forked import Forked, ForkFailedError, fork
from headrace.learner.versions import VersionBuilder, newest_of, next_versions
from headrace.platform.logging import get_logger
from headrace.v1.model_pb2 import ModelVersion

SLOW_BUILD_S = 0.05
BUILD_TIMEOUT_S = 120


@dataclass(frozen=True)
class Publication:
    """Versions under way.

    Attributes:
        build: makes them.
        forked: the child that makes them, if one does.
        learned: by model, the outcomes learned since its last version that belong to these.
        next_command: offset in `control` of the first command that was not handled then.
        started: seconds of the monotonic clock.
    """

    build: Callable[[], list[ModelVersion]]
    forked: Forked | None
    learned: Sequence[int]
    next_command: int
    started: float


class Publisher:
    """Publishes the state of the models as the next versions, one of each.

    Args:
        builder: makes a version and its files.
        announcer: announces them.
        cohort: the models.
    """

    def __init__(self, builder: VersionBuilder, announcer: Announcer, cohort: Cohort) -> None:
        self._builder = builder
        self._announcer = announcer
        self._cohort = cohort
        self._took_s = 0.0
        self._may_fork = True
        self._log = get_logger()

    @property
    def slow(self) -> bool:
        """Whether making versions takes so long that learning should go on meanwhile."""
        return self._may_fork and self._took_s > SLOW_BUILD_S

    async def publish(self) -> list[ModelVersion]:
        """Publish versions. Nothing may be learned meanwhile.

        Raises:
            LearnerError: a version is not one that may be announced.
            KafkaFault: they were not announced for certain: the process must end and read what is.
            ArtifactError: a file cannot be written.
        """
        return await self.finish(self._begin())

    def begin_beside(self) -> Publication:
        """Begin to make versions of the state as it is now, in a forked process. `finish` must be awaited.

        To be called from the main thread while nothing is learned; afterwards learning may go on.
        """
        publication = self._begin()
        forked = fork(lambda: [one.SerializeToString() for one in publication.build()], BUILD_TIMEOUT_S)
        return Publication(
            publication.build, forked, publication.learned, publication.next_command, publication.started
        )

    async def finish(self, publication: Publication) -> list[ModelVersion]:
        """Wait until the versions are made, and announce them.

        Returns:
            The versions; none where the child that makes them ended without any: what was learned belongs to the
            next ones then, which are made in this process.

        Raises:
            LearnerError: a version is not one that may be announced.
            KafkaFault: they were not announced for certain: the process must end and read what is.
            ArtifactError: a file cannot be written.
        """
        if publication.forked is None:
            versions = await asyncio.to_thread(publication.build)
        else:
            try:
                versions = [ModelVersion.FromString(one) for one in await publication.forked.result()]
            except ForkFailedError as error:
                self._log.error("no version: the next ones are made without a process of their own", reason=str(error))
                self._may_fork = False
                return []
        self._took_s = time.monotonic() - publication.started
        await self._announcer.announce(versions, publication.next_command)
        for member, learned in zip(self._cohort.members, publication.learned, strict=True):
            member.learning.version_announced(learned)
        took_s = time.monotonic() - publication.started
        metrics.PUBLISH.observe(took_s)
        for version, learned in zip(versions, publication.learned, strict=True):
            self._say(version, learned, took_s)
        return versions

    def _begin(self) -> Publication:
        announcer, cohort = self._announcer, self._cohort
        names = next_versions(announcer.newest, len(cohort.members))
        parents = [newest_of(announcer.announced, one.learning.recipe.fingerprint) for one in cohort.members]
        created_time_us = time.time_ns() // 1000

        def build() -> list[ModelVersion]:
            return [
                self._builder.build(member, name, parent, announcer.epoch, created_time_us)
                for member, name, parent in zip(cohort.members, names, parents, strict=True)
            ]

        learned = [member.learning.learned_since_version for member in cohort.members]
        return Publication(build, None, learned, cohort.next_command, time.monotonic())

    def _say(self, version: ModelVersion, learned: int, took_s: float) -> None:
        metrics.VERSIONS.inc()
        if not version.challenger:
            metrics.MODEL_TIME.set(version.model_time_us / 1e6)
            if "rolling_log_loss" in version.metrics:
                metrics.LOG_LOSS.set(version.metrics["rolling_log_loss"])
        self._log.info(
            "version announced",
            version=version.version,
            recipe=version.recipe,
            learned=learned,
            learned_count=version.learned_count,
            epoch=version.learner_epoch,
            took_s=round(took_s, 4),
            **{name: round(value, 5) for name, value in sorted(version.metrics.items())},
        )
