"""Leadership among the learners of a pipeline: membership of the one-partition topic `control`.

The learner that is assigned the partition leads; of several, Kafka's assignment takes the first by name. The topic
also carries the commands, which only the leader reads. When the partition goes to another process this one ends, to
come back as a stand-by. Membership alone is not what keeps two from announcing: a process that leads fences all others
before it reads what is announced (see `announcements`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import ConsumerRebalanceListener

from headrace.learner.errors import LeadershipLostError, LearnerError
from headrace.platform import kafka
from headrace.platform.topics import ROUTE_COMMAND_KEY, Topics
from headrace.v1.model_pb2 import LearnerCommand

POLL_MS = 500


class PlacedCommand(NamedTuple):
    """A command and its offset in `control`."""

    offset: int
    command: LearnerCommand


class Leadership(ConsumerRebalanceListener):  # type: ignore[misc]
    """Whether this process leads, and what it is told. Made by `leadership`."""

    def __init__(self, topics: Topics) -> None:
        self._partition = kafka.TopicPartition(topics.control, 0)
        self._leads = asyncio.Event()
        self._lost = asyncio.Event()
        self._reader: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process leads, or did until `lost` says otherwise."""
        return self._leads.is_set()

    async def acquired(self) -> None:
        """Wait until this process leads. While another one does, that may be for good: this one stands by."""
        await self._leads.wait()

    async def commands(self, first: int) -> AsyncIterator[PlacedCommand]:
        """The commands from offset `first` on, without end.

        Raises:
            LeadershipLostError: another learner has taken over.
            LearnerError: a record is not a command; names its offset.
        """
        self._reader.seek(self._partition, first)
        while True:
            found = await self._reader.getmany(timeout_ms=POLL_MS)
            if self._lost.is_set():
                raise LeadershipLostError("another learner leads now; this one ends")
            for record in found.get(self._partition, []):
                if record.key == ROUTE_COMMAND_KEY:
                    continue
                try:
                    yield PlacedCommand(record.offset, LearnerCommand.FromString(record.value or b""))
                except ValueError as error:
                    raise LearnerError(f"control@{record.offset} is not a LearnerCommand: {error}") from error

    async def lost(self) -> None:
        """Wait until another learner has taken over, then raise.

        Raises:
            LeadershipLostError: always.
        """
        await self._lost.wait()
        raise LeadershipLostError("another learner leads now; this one ends")

    async def on_partitions_revoked(self, revoked: Collection[kafka.TopicPartition]) -> None:
        """Called by the consumer before a rebalance."""

    async def on_partitions_assigned(self, assigned: Collection[kafka.TopicPartition]) -> None:
        """Called by the consumer after a rebalance."""
        if self._partition in assigned:
            # Also when it was ours before. Had another one led meanwhile, it would have fenced this one's producer.
            self._leads.set()
        elif self._leads.is_set():
            self._lost.set()


@asynccontextmanager
async def leadership(bootstrap: str, topics: Topics, instance: str) -> AsyncIterator[Leadership]:
    """Join the learners of a pipeline.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        instance: name of this process. One that comes back under the same name takes its place at once; without that
            it would wait until the session of its predecessor ends.

    Raises:
        KafkaUnavailable: no broker answers in time.
    """
    group = topics.group("learner")
    joined = Leadership(topics)
    async with kafka.consumer(
        bootstrap,
        topics=[topics.control],
        group=group,
        listener=joined,
        group_instance_id=f"{group}.{instance}",
        # Commands are read one at a time, and one may take long; whether this process lives, its heartbeats say.
        max_poll_interval_ms=24 * 3_600_000,
        rebalance_timeout_ms=kafka.SESSION_TIMEOUT_MS,
    ) as reader:
        joined._reader = reader
        yield joined
