"""Forgetting the feature state, so that a worker builds it again from what the topics hold."""

from __future__ import annotations

from headrace.features.stored_states import delete_state
from headrace.platform.errors import OperatorError
from headrace.platform.kafka import KafkaAdmin, KafkaRefused
from headrace.platform.redis import connect, require_safe
from headrace.platform.topics import Topics

GROUPS = ("features", "features-outcomes")


class WorkerRunningError(OperatorError):
    """A worker has partitions of the pipeline, so its state must not be taken from it."""


async def reset(topics: Topics, fingerprint: int, bootstrap: str, redis_url: str) -> int:
    """Delete the state of a pipeline and what its workers have committed; the number of keys that were deleted.

    A worker that starts afterwards reads both topics from their beginning, and publishes a vector for every event
    again; readers of `vectors` drop them by their source offsets.

    Args:
        topics: names.
        fingerprint: of the features.
        bootstrap: Kafka brokers.
        redis_url: where the state is.

    Raises:
        WorkerRunningError: a worker is running, or was killed seconds ago. Nothing was deleted.
        KafkaFault: Kafka does not answer, or refuses.
        RedisFault: Redis does not answer, or is not one that keeps state.
    """
    client = connect(redis_url)
    try:
        await require_safe(client)
        # The commits first: a worker that starts before the state is gone finds its fences and merges nothing twice.
        await forget_commits(topics, bootstrap)
        return await delete_state(client, topics.deployed, fingerprint)
    finally:
        await client.aclose()


async def forget_commits(topics: Topics, bootstrap: str) -> None:
    """Delete what the workers of a definition have committed.

    Raises:
        WorkerRunningError: a worker is running, or was killed seconds ago.
        KafkaFault: Kafka does not answer, or refuses.
    """
    async with KafkaAdmin(bootstrap) as admin:
        for group in map(topics.definition_group, GROUPS):
            try:
                await admin.delete_group(group)
            except KafkaRefused as error:
                raise WorkerRunningError(
                    f"{error}: stop the features service first (a killed one is a member for seconds more)"
                ) from error
