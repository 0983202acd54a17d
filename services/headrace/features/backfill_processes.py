"""A backfill as one or several processes, and how far it has come."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import redis.exceptions

from headrace.features.backfill import Backfill, BackfillRefusedError, BackfillStalledError, Share, history_source
from headrace.features.bulk_merging import BulkMerger
from headrace.features.cut_over import CutOver
from headrace.features.erasures import Erasures
from headrace.features.errors import FenceMovedError
from headrace.features.history import History
from headrace.features.outcome_merging import OutcomeMerger
from headrace.features.state_writer import StateWriter, time_to_live_s
from headrace.pipeline.state import compile_plan
from headrace.platform.errors import OperatorError
from headrace.platform.feature_state import EVENTS, OUTCOMES, FeatureStateReader
from headrace.platform.kafka import KafkaAdmin, KafkaFault, TopicPartition
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis import RedisUnavailable, connect, require_safe
from headrace.platform.redis_connection import RedisConnections
from headrace.platform.topics import Topics

PASSES = 3
ENOUGH_LEFT = 10_000
POLL_S = 0.25
REPLY_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class BackfillTask:
    """What is to be built and from what. It travels between processes.

    Attributes:
        pipeline: where the declaration is, as `load_pipeline` takes it.
        topics: names.
        bootstrap: Kafka brokers.
        redis_url: where the state is.
        history: events and labels outside the topics.
        batch_events: events that are read and merged together.
        chunk_events: events per script: between scripts other users of Redis get in.
    """

    pipeline: str
    topics: Topics
    bootstrap: str
    redis_url: str
    history: History | None
    batch_events: int
    chunk_events: int


@dataclass(frozen=True)
class BackfillDone:
    """How it went.

    Attributes:
        cut_over: where the worker of the definition begins.
        records: how many were read by this run.
        seconds: how long that took.
    """

    cut_over: CutOver
    records: int
    seconds: float


Progress = Callable[[int, int], None]
Ends = Mapping[TopicPartition, int]


@asynccontextmanager
async def opened(task: BackfillTask) -> AsyncIterator[Backfill]:
    """The backfill of a task, with connections of its own.

    Raises:
        RedisFault: Redis does not answer, or is not one that keeps state.
    """
    plan = compile_plan(load_pipeline(task.pipeline))
    client = connect(task.redis_url, reply_timeout_s=REPLY_TIMEOUT_S)
    connections = RedisConnections(task.redis_url, reply_timeout_s=REPLY_TIMEOUT_S)
    try:
        await require_safe(client)
        reader = FeatureStateReader(connections, plan, task.topics.deployed)
        erasures = Erasures(connections, reader.keys)
        writer = StateWriter(connections, reader.keys, time_to_live_s(plan), erasures)
        merger = BulkMerger(plan, reader, writer, erasures, task.chunk_events)
        outcomes = OutcomeMerger(plan, reader.keys, writer, erasures=erasures)
        yield Backfill(client, task.bootstrap, task.topics, merger, outcomes, task.batch_events)
    finally:
        await connections.aclose()
        await client.aclose()


class _Team:
    """The processes that do the work: this one, or several others."""

    def __init__(self, backfill: Backfill, task: BackfillTask, workers: int) -> None:
        self.shares = [Share(number, workers) for number in range(workers)]
        self._backfill = backfill
        self._task = task
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, mp_context=spawn) if workers > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    async def merge(self, ends: Ends | None) -> None:
        """Merge the history (no ends), or the topics up to these ends."""
        if self._pool is None:
            await _one_share(self._backfill, self._task, self.shares[0], ends)
            return
        work = [self._pool.submit(_process, self._task, share, ends) for share in self.shares]
        await asyncio.gather(*map(asyncio.wrap_future, work))


async def run_backfill(task: BackfillTask, workers: int, progress: Progress) -> BackfillDone:
    """Build the state, or go on with building it, and set the definition's consumer groups to the cut-over.

    Args:
        task: what is to be built.
        workers: how many processes.
        progress: told how many records are merged, and of how many.

    Raises:
        BackfillRefusedError: the state is not to be built from history; the message says why.
        BackfillStalledError: Kafka delivers nothing more, though there is more.
        KafkaFault: Kafka does not answer, or refuses.
        RedisFault: Redis does not answer, or is not one that keeps state.
    """
    began, records = time.monotonic(), 0
    async with AsyncExitStack() as stack:
        backfill = await stack.enter_async_context(opened(task))
        cut_over = await backfill.begin()
        if cut_over is not None:
            await backfill.commit(cut_over)
            return BackfillDone(cut_over, 0, time.monotonic() - began)
        team = stack.enter_context(_Team(backfill, task, workers))
        if task.history is not None:
            sources = {history_source(task.history, share): (0, task.history.rows) for share in team.shares}
            # Each process goes over all rows and takes those that are its own.
            records += await _followed(backfill, team, None, sources, progress) // workers
        for _ in range(PASSES):
            ends = await backfill.ends()
            sources = await _ranges(task, ends)
            merged = await backfill.merged()
            left = sum(end - max(begin, merged.get(source, -1) + 1) for source, (begin, end) in sources.items())
            if left <= 0:
                break
            records += await _followed(backfill, team, ends, sources, progress)
            if left < ENOUGH_LEFT:
                break
        return BackfillDone(await backfill.finish(), records, time.monotonic() - began)


async def _ranges(task: BackfillTask, ends: Ends) -> dict[str, tuple[int, int]]:
    """First offset and end of each source partition."""
    names = {task.topics.events: EVENTS, task.topics.outcomes: OUTCOMES}
    async with KafkaAdmin(task.bootstrap) as admin:
        begins = await admin.begin_offsets(names)
    return {f"{names[at.topic]}/{at.partition}": (begins[at], end) for at, end in ends.items()}


async def _followed(
    backfill: Backfill,
    team: _Team,
    ends: Ends | None,
    sources: Mapping[str, tuple[int, int]],
    progress: Progress,
) -> int:
    """Let the processes merge a history (no ends) or the topics, and tell how far they are; how much they merged."""
    before = await backfill.merged()
    total = sum(end - begin for begin, end in sources.values())

    def done(merged: Mapping[str, int]) -> int:
        return sum(
            min(max(merged.get(source, -1) + 1 - begin, 0), end - begin) for source, (begin, end) in sources.items()
        )

    work = asyncio.create_task(team.merge(ends))
    try:
        while not work.done():
            progress(done(await backfill.merged()), total)
            await asyncio.wait([work], timeout=POLL_S)
        await work
    finally:
        work.cancel()
        await asyncio.wait([work])
    after = await backfill.merged()
    progress(done(after), total)
    if done(after) < total:
        raise BackfillStalledError(f"{total - done(after)} of {total} records were not merged; run it again")
    return done(after) - done(before)


def _process(task: BackfillTask, share: Share, ends: Ends | None) -> None:
    async def merge() -> None:
        async with opened(task) as backfill:
            await _one_share(backfill, task, share, ends)

    try:
        asyncio.run(merge())
    except (OperatorError, KafkaFault) as error:
        # What crosses between processes must be made from its message alone.
        raise BackfillRefusedError(str(error)) from None


async def _one_share(backfill: Backfill, task: BackfillTask, share: Share, ends: Ends | None) -> None:
    try:
        if ends is not None:
            await backfill.merge_topics(share, ends, overlap=task.history is not None)
        elif task.history is not None:
            await backfill.merge_history(task.history, share)
    except FenceMovedError as moved:
        raise BackfillStalledError(
            f"{moved}: another backfill is at work, or something was erased; run it again, it goes on where it was"
        ) from moved
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        raise RedisUnavailable(f"Redis does not answer: {error}; run it again, it goes on where it was") from error
