"""The newest version of a recipe, as it is announced, for those who go on from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from headrace.learner.errors import LearnerError
from headrace.platform import kafka
from headrace.platform.topics import Topics
from headrace.v1.model_pb2 import ModelVersion


class VersionTail:
    """Follows the topic `models`. Made by `version_tail`."""

    def __init__(self, reader: Any, partition: kafka.TopicPartition, recipe_fingerprint: str) -> None:
        self._reader = reader
        self._partition = partition
        self._recipe_fingerprint = recipe_fingerprint
        self._epoch = 0

    async def newer(self, timeout_s: float) -> ModelVersion | None:
        """The newest version of the recipe that was not given before; None when none comes in time.

        Args:
            timeout_s: to wait for one, in seconds.

        Raises:
            LearnerError: a record is not a ModelVersion; names its offset.
        """
        found = None
        timeout_ms = int(timeout_s * 1000)
        while records := (await self._reader.getmany(self._partition, timeout_ms=timeout_ms)).get(self._partition):
            timeout_ms = 0
            for record in records:
                if record.value is None:
                    continue
                try:
                    version = ModelVersion.FromString(record.value)
                except ValueError as error:
                    raise LearnerError(f"models@{record.offset} is not a ModelVersion: {error}") from error
                # One of a lower epoch is a fenced learner's.
                if version.learner_epoch >= self._epoch:
                    self._epoch = version.learner_epoch
                    if version.recipe_fingerprint == self._recipe_fingerprint:
                        found = version
        return found


@asynccontextmanager
async def version_tail(bootstrap: str, topics: Topics, recipe_fingerprint: str) -> AsyncIterator[VersionTail]:
    """Follow the versions of a recipe, from the first that is kept.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        recipe_fingerprint: SHA-256 of the recipe, hexadecimal.

    Raises:
        KafkaUnavailable: no broker answers in time.
    """
    partition = kafka.TopicPartition(topics.models, 0)
    async with kafka.consumer(bootstrap, partitions=[partition]) as reader:
        yield VersionTail(reader, partition, recipe_fingerprint)
