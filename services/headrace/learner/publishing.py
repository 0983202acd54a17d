"""Publishing a version: build it, announce it, note that it is out."""

from __future__ import annotations

import asyncio
import time

from headrace.learner import metrics
from headrace.learner.announcements import Announcer
from headrace.learner.learning import Learning
from headrace.learner.versions import VersionBuilder
from headrace.platform.logging import get_logger
from headrace.v1.model_pb2 import ModelVersion


class Publisher:
    """Publishes the state of a learning as the next version.

    Args:
        builder: makes the version and its files.
        announcer: announces it.
        learning: the state.
    """

    def __init__(self, builder: VersionBuilder, announcer: Announcer, learning: Learning) -> None:
        self._builder = builder
        self._announcer = announcer
        self._learning = learning
        self._log = get_logger()

    async def publish(self) -> ModelVersion:
        """Publish one version. Nothing is learned meanwhile.

        Raises:
            LearnerError: the version is not one that may be announced.
            KafkaFault: it was not announced for certain: the process must end and read what is.
            ArtifactError: a file cannot be written.
        """
        learning, announcer = self._learning, self._announcer
        started = time.monotonic()
        since_parent = learning.learned_since_version
        version = await asyncio.to_thread(
            self._builder.build, learning, announcer.newest, announcer.epoch, time.time_ns() // 1000
        )
        await announcer.announce(version, learning.next_command)
        learning.version_announced(since_parent)
        took_s = time.monotonic() - started
        metrics.VERSIONS.inc()
        metrics.PUBLISH.observe(took_s)
        metrics.MODEL_TIME.set(version.model_time_us / 1e6)
        if "rolling_log_loss" in version.metrics:
            metrics.LOG_LOSS.set(version.metrics["rolling_log_loss"])
        self._log.info(
            "version announced",
            version=version.version,
            learned=since_parent,
            learned_count=version.learned_count,
            epoch=version.learner_epoch,
            took_s=round(took_s, 4),
            **{name: round(value, 5) for name, value in sorted(version.metrics.items())},
        )
        return version
