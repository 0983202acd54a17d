"""The outcomes service: where its parts are put together."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from headrace.outcomes.expiry import PartitionTimes
from headrace.outcomes.join import JoinRules
from headrace.outcomes.membership import membership
from headrace.outcomes.partition_worker import PartitionWorker, WorkerSetup
from headrace.outcomes.settings import OutcomesSettings
from headrace.platform.health import Health
from headrace.platform.kafka import topic_ids
from headrace.platform.lifecycle import Deadline
from headrace.platform.logging import get_logger
from headrace.platform.pipelines import load_pipeline
from headrace.platform.topics import Topics, check_topics, deployed_name

HEARTBEAT_S = 120.0


class OutcomesService:
    """Joins labels to predictions, one join for each partition that this process is assigned.

    Args:
        settings: of the service.
        health: told what it waits for.

    Raises:
        PipelineLoadError: the pipeline cannot be loaded.
    """

    def __init__(self, settings: OutcomesSettings, health: Health) -> None:
        self._settings = settings
        self._pipeline = load_pipeline(settings.pipeline)
        self._topics = Topics(deployed_name(self._pipeline.name, settings.namespace))
        self._assignment = health.component("assignment")
        self._assignment.starting("joining the group")
        self._health = health
        self._resources = contextlib.AsyncExitStack()
        self._log = get_logger()
        self._setup: WorkerSetup
        self._workers: dict[int, tuple[PartitionWorker, asyncio.Task[None]]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._ending = False
        self._failure: asyncio.Future[None]

    async def start(self) -> None:
        """Check the topics."""
        settings, topics = self._settings, self._topics
        names = (topics.predictions, topics.labels, topics.outcomes)
        partitions = await check_topics(settings.kafka_bootstrap, topics.deployed, only=(*names, topics.rejected))
        ids = await topic_ids(settings.kafka_bootstrap, names)
        self._setup = WorkerSetup(
            settings,
            topics,
            partitions,
            " ".join(str(ids[name]) for name in (topics.predictions, topics.labels)),
            PartitionTimes(),
        )

    async def run(self) -> None:
        """Join what is assigned until cancelled."""
        self._failure = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await self._resources.enter_async_context(
                    membership(
                        self._settings.kafka_bootstrap,
                        self._topics,
                        self._settings.instance,
                        revoked=self._end_workers,
                        assigned=self._begin_workers,
                        failed=self._fail,
                    )
                )
                await self._failure
        except BaseExceptionGroup as group:
            # The first failure is the cause; the others are its consequence.
            raise group.exceptions[0] from group

    async def drain(self, deadline: Deadline) -> None:
        """Let the batches that are under way be committed."""
        self._assignment.not_ready("stopping")
        self._ending = True
        async with asyncio.timeout(deadline.remaining()):
            await self._end_workers()

    async def stop(self, deadline: Deadline) -> None:
        """Leave Kafka."""
        async with asyncio.timeout(deadline.remaining()):
            await self._resources.aclose()

    async def _end_workers(self) -> None:
        ending, self._workers = self._workers, {}
        for worker, _ in ending.values():
            worker.stop()
        if ending:
            await asyncio.wait([task for _, task in ending.values()])
        self._assignment.starting("rebalancing")

    def _begin_workers(self, partitions: frozenset[int]) -> None:
        assert self._tasks is not None
        if self._ending:
            return
        self._log.info("partitions assigned", partitions=sorted(partitions))
        for partition in sorted(partitions):
            heartbeat = self._health.heartbeat(f"partition {partition}", HEARTBEAT_S)
            worker = PartitionWorker(self._setup, self._rules(partition), self._directory(partition), heartbeat)
            self._workers[partition] = worker, self._tasks.create_task(self._run(worker), name=f"partition {partition}")
        self._assignment.starting("catching up")
        self._tasks.create_task(self._note_readiness(self._workers), name="readiness")

    async def _run(self, worker: PartitionWorker) -> None:
        try:
            await worker.run()
        except BaseException:
            # A rebalance that comes after this begins nothing.
            self._ending = True
            raise

    async def _note_readiness(self, workers: dict[int, tuple[PartitionWorker, asyncio.Task[None]]]) -> None:
        for worker, task in workers.values():
            waiting = asyncio.create_task(worker.ready.wait())
            await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        if workers is self._workers:
            self._assignment.ready()

    def _fail(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    def _rules(self, partition: int) -> JoinRules:
        pipeline = self._pipeline
        return JoinRules(
            partition,
            self._topics.predictions,
            self._topics.labels,
            pipeline.label.horizon,
            pipeline.lateness,
            pipeline.max_jump,
            pipeline.label.expired,
            pipeline.label,
        )

    def _directory(self, partition: int) -> Path:
        return self._settings.state_dir / "outcomes" / self._topics.deployed / str(partition)
