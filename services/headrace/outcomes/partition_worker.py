"""One partition's join from taking it over to letting it go."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from headrace.outcomes import metrics
from headrace.outcomes.expiry import PartitionTimes
from headrace.outcomes.join import JoinRules
from headrace.outcomes.join_store import open_store
from headrace.outcomes.partition_join import Limits, PartitionJoin
from headrace.outcomes.progress import Positions, Progress
from headrace.outcomes.reading import partition_reader
from headrace.outcomes.settings import OutcomesSettings
from headrace.outcomes.transactions import SERVICE, transaction_writer
from headrace.platform import kafka
from headrace.platform.health import Heartbeat
from headrace.platform.topics import Topics


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What the workers of all partitions share.

    Attributes:
        settings: of the service.
        topics: of the deployed pipeline.
        partitions: number of partitions of each topic.
        identity: names the topics by their ids.
        times: event times of the partitions of this process.
    """

    settings: OutcomesSettings
    topics: Topics
    partitions: int
    identity: str
    times: PartitionTimes


class PartitionWorker:
    """Runs the join of one partition.

    Args:
        setup: what all partitions share.
        rules: what is declared, for this partition.
        directory: of this partition's store.
        heartbeat: beats whenever the join comes round.
    """

    def __init__(self, setup: WorkerSetup, rules: JoinRules, directory: Path, heartbeat: Heartbeat) -> None:
        self.ready = asyncio.Event()
        """Set once it joins what comes."""
        self._setup = setup
        self._rules = rules
        self._directory = directory
        self._heartbeat = heartbeat
        self._stopping = False
        self._opening = False
        self._join: PartitionJoin | None = None
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Take over the partition and join it until stopped.

        Raises:
            KafkaFault: Kafka is away for too long, refuses, or another process has taken over.
            OutcomesError: topics or store are not usable.
        """
        self._task = asyncio.current_task()
        try:
            async with AsyncExitStack() as opened:
                self._join = await self._take_over(opened)
                if not self._stopping:
                    await self._join.catch_up()
                    self.ready.set()
                while not self._stopping:
                    await self._join.go_round()
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        finally:
            self.ready.clear()
            self._heartbeat.suspend()
            self._setup.times.forget(self._rules.partition)
            metrics.forget(self._rules.partition)

    def stop(self) -> None:
        """End after the batch that is under way, or at once where there is none; `run` returns then."""
        self._stopping = True
        busy = self._opening or (self._join is not None and self._join.busy)
        if self._task is not None and not busy:
            self._task.cancel()

    async def _take_over(self, opened: AsyncExitStack) -> PartitionJoin:
        settings, topics, partition = self._setup.settings, self._setup.topics, self._rules.partition
        bootstrap, enter = settings.kafka_bootstrap, opened.enter_async_context
        # First of all: from here on no earlier process commits anything.
        writer = await enter(transaction_writer(bootstrap, topics, partition, settings.transaction_timeout_s))
        reader = await enter(partition_reader(bootstrap, topics, partition, fetch_wait_ms=settings.fetch_wait_ms))
        # A thread cannot be interrupted, and what it opens must be closed.
        self._opening = True
        try:
            store = await asyncio.to_thread(open_store, self._directory, self._setup.identity)
        finally:
            self._opening = False
        opened.callback(store.close)
        return PartitionJoin(
            self._rules,
            self._setup.partitions,
            Limits(settings.batch_records, settings.expiry_records, settings.expiry_interval_s),
            self._setup.times,
            reader,
            writer,
            store,
            await self._committed(),
            self._heartbeat,
        )

    async def _committed(self) -> Progress:
        topics, partition = self._setup.topics, self._rules.partition
        async with kafka.KafkaAdmin(self._setup.settings.kafka_bootstrap, timeout_s=kafka.START_TIMEOUT_S) as admin:
            found = await admin.committed(topics.group(SERVICE))
        predictions, metadata = found.get(kafka.TopicPartition(topics.predictions, partition), (0, ""))
        labels, _ = found.get(kafka.TopicPartition(topics.labels, partition), (0, ""))
        return Progress.committed(Positions(predictions, labels), metadata)
