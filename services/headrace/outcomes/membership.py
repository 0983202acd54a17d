"""Which partitions this process joins, by membership of the consumer group.

The member itself reads nothing: each partition has a reader of its own. What keeps two processes from joining one
partition is not the group but the transactional id of the partition, which fences the one that had it before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from headrace.outcomes.errors import AssignmentError
from headrace.outcomes.transactions import SERVICE
from headrace.platform import kafka
from headrace.platform.topics import Topics

NEVER_MS = 24 * 3_600_000
REBALANCE_MS = 30_000
JOIN_TIMEOUT_S = 60.0


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]
    """Told of rebalances by the client, tells the service. Made by `membership`."""

    def __init__(
        self,
        topics: Topics,
        revoked: Callable[[], Awaitable[None]],
        assigned: Callable[[frozenset[int]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._topics = topics
        self._revoked = revoked
        self._assigned = assigned
        self._failed = failed
        self._consumer: Any = None

    async def on_partitions_revoked(self, revoked: Collection[kafka.TopicPartition]) -> None:
        """Called by the client before a rebalance; waits until the joins have ended."""
        await self._guard(self._revoked())

    async def on_partitions_assigned(self, assigned: Collection[kafka.TopicPartition]) -> None:
        """Called by the client after a rebalance."""

        async def assign() -> None:
            by_topic = {
                topic: frozenset(one.partition for one in assigned if one.topic == topic)
                for topic in (self._topics.predictions, self._topics.labels)
            }
            predictions, labels = by_topic.values()
            if predictions != labels:
                raise AssignmentError(
                    f"assigned are partitions {sorted(predictions)} of {self._topics.predictions} but "
                    f"{sorted(labels)} of {self._topics.labels}: they must be the same"
                )
            self._assigned(predictions)

        await self._guard(assign())

    async def _guard(self, step: Awaitable[None]) -> None:
        # The client logs and swallows what a listener raises.
        try:
            await step
        except Exception as error:  # noqa: BLE001 (raised by the service)
            self._failed(error)


@asynccontextmanager
async def membership(
    bootstrap: str,
    topics: Topics,
    instance: str,
    *,
    revoked: Callable[[], Awaitable[None]],
    assigned: Callable[[frozenset[int]], None],
    failed: Callable[[BaseException], None],
) -> AsyncIterator[None]:
    """Be a member of the group while the block runs. The first assignment is there when it begins.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        instance: name of this process. One that comes back under the same name gets its partitions back at once;
            without that it would wait until the session of its predecessor ends.
        revoked: ends the joins of all partitions.
        assigned: told of the partitions that are to be joined from now on.
        failed: told what went wrong in either.

    Raises:
        KafkaUnavailable: no broker answers in time.
    """
    group = topics.group(SERVICE)
    listener = Membership(topics, revoked, assigned, failed)
    async with kafka.consumer(
        bootstrap,
        topics=[topics.predictions, topics.labels],
        group=group,
        listener=listener,
        group_instance_id=f"{group}.{instance}",
        # Gives a member the same partitions of both topics.
        partition_assignment_strategy=(RangePartitionAssignor,),
        # It polls nothing, and its heartbeats say whether it lives; what little it fetches is not used.
        max_poll_interval_ms=NEVER_MS,
        rebalance_timeout_ms=REBALANCE_MS,
        max_partition_fetch_bytes=1,
        fetch_max_bytes=1,
        fetch_max_wait_ms=500,
        # A rebalance among several waits for all of them.
        start_timeout_s=JOIN_TIMEOUT_S,
    ):
        yield
