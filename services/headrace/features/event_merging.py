"""A batch of events into the state and out as vectors. Knows Redis through reader and writer, and nothing of Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from typing import Any, TypeVar, cast

import numpy as np

from headrace.features.accepted_events import AcceptedEvents, BoolArray, joined
from headrace.features.duplicates import find_duplicates
from headrace.features.erasures import Erasures
from headrace.features.errors import FenceMovedError
from headrace.features.log_rewriting import trim_logs
from headrace.features.metrics import DUPLICATE_EVENTS, MERGED_EVENTS, OVERTAKEN_EVENTS
from headrace.features.pending_appends import LogAdditions, PendingAppends
from headrace.features.state_writer import StateWriter
from headrace.features.time_guard import TimeGuard
from headrace.features.trimming import EVENT_SOURCES, IDLE, TRIMMED
from headrace.features.vector_encoding import StatePositions
from headrace.pipeline.evaluation import Evaluator, Kernel
from headrace.pipeline.events import EventColumns, FloatArray, Int64Array, UInt64Array, hash_ids
from headrace.pipeline.state import FeaturePlan, Records
from headrace.platform.feature_state import EVENTS, OUTCOMES, FeatureStateReader, StateSnapshot, pairs, positions_of

A = TypeVar("A")
B = TypeVar("B")

NOTHING_MERGED = -1
KEYS_PER_READ = 250
"""Logs that one command reads: what it takes is what other readers of this Redis wait for."""
SMALL_EVENTS = 200
OTHERS_S = 5.0
"""How long other workers are taken to be at work after one was, in seconds."""


@dataclass
class PartitionProgress:
    """Where this worker stands in one partition of `events`.

    Attributes:
        fence: last merged offset.
        committed_highest: highest event time at the last committed offset, in microseconds: nothing before it will be
            evaluated again after a crash.
    """

    fence: int = NOTHING_MERGED
    committed_highest: int = 0

    def encode(self, guard: TimeGuard, *, idle: bool = False) -> str:
        """What is stored beside the fence: the guard, the committed event time, and whether the partition is idle."""
        return f"{guard.encode()}:{self.committed_highest}{IDLE if idle else ''}"


def decode_source(text: str) -> tuple[TimeGuard, int]:
    """Guard and committed event time from what is stored beside a fence; fresh ones from the empty string."""
    guard, _, committed = text.removesuffix(IDLE).rpartition(":")
    return TimeGuard.decode(guard), int(committed or 0)


@dataclass(frozen=True)
class EvaluatedBatch:
    """Vectors of a batch of n events.

    Attributes:
        values: in the order of the batch, shape (n, features).
        positions: state positions that vectors hold at: one, and a second one for events that were evaluated again.
        evaluated: for each event which of them is its own, shape (n,).
        late: whether logs were trimmed already of what windows at its time may reach, shape (n,).
    """

    values: FloatArray
    positions: tuple[StatePositions, ...]
    evaluated: Int64Array
    late: BoolArray


@dataclass(frozen=True)
class _Prepared:
    """What is known of n events without the state: hashes of their ids, shape (n,); by entity what each adds."""

    hashes: UInt64Array
    records: Sequence[Records]


@dataclass
class EventMerger:
    """Merges events into the logs of their entities and evaluates them.

    Attributes:
        plan: the compiled pipeline.
        reader: reads the state.
        writer: writes it.
        chunk_events: events per script: small ones let other readers in between.
        erasures: what must not enter the state again.
        progress: of each assigned partition.
        small_events: events that are read at once while other workers merge too.
        kernel: machine code for the evaluation, None to do without.
    """

    plan: FeaturePlan
    reader: FeatureStateReader
    writer: StateWriter
    chunk_events: int
    erasures: Erasures | None = None
    progress: dict[int, PartitionProgress] = field(default_factory=dict)
    small_events: int = SMALL_EVENTS
    kernel: Kernel | None = None
    _turns: Iterator[int] = field(default_factory=count, init=False, repr=False)
    _others_until: float = field(default=0.0, init=False, repr=False)

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self.plan, self.kernel)

    async def merge(self, batch: Sequence[tuple[int, AcceptedEvents]]) -> EvaluatedBatch:
        """Merge what lies beyond the fences, and evaluate everything.

        Args:
            batch: partitions with their events in offset order.

        Raises:
            FenceMovedError: a fence is not where this worker left it. What was written is behind its fence.
            redis.RedisError: the state could not be reached.
        """
        columns = joined([events.columns for _, events in batch])
        if len(columns) <= self.small_events:
            return await self._merge(batch, columns, *await _both(self._read(columns), self._prepare(columns)))
        if time.monotonic() >= self._others_until:
            reading = self.reader.read_in_parts(columns, KEYS_PER_READ, [("HGETALL", self.reader.keys.sources)])
            snapshot, prepared = await _both(reading, self._prepare(columns))
            if snapshot is not None:
                return await self._merge(batch, columns, snapshot, prepared)
            self._others_until = time.monotonic() + OTHERS_S
        # While other workers merge too, only what is read at once is of one moment: so little is read at once.
        parts = []
        for partition, events in batch:
            for first in range(0, len(events), self.small_events):
                small = events.part(first, first + self.small_events)
                read = await _both(self._read(small.columns), self._prepare(small.columns))
                parts.append(await self._merge([(partition, small)], small.columns, *read))
        return joined_batches(parts)

    async def _prepare(self, columns: EventColumns) -> _Prepared:
        """What needs no state. A step at a time, while the state is read."""
        await asyncio.sleep(0)
        hashes = hash_ids(columns.ids)
        records = []
        for entity in self.plan.entities:
            await asyncio.sleep(0)
            records.append(entity.event_records(columns, hashes))
        return _Prepared(hashes, records)

    async def _merge(
        self,
        batch: Sequence[tuple[int, AcceptedEvents]],
        columns: EventColumns,
        snapshot: StateSnapshot,
        prepared: _Prepared,
    ) -> EvaluatedBatch:
        self._check_fences(batch, snapshot)
        beyond = np.concatenate([events.offsets > self.progress[p].fence for p, events in batch])
        sources = _sources(snapshot)
        if self.erasures is not None:
            await self.erasures.follow(sources)
        produced_us = np.concatenate([events.produced_us for _, events in batch])
        new, additions = [], []
        for logs, records in zip(snapshot.entities, prepared.records, strict=True):
            merging = beyond & ~find_duplicates(logs, prepared.hashes, beyond)
            if self.erasures is not None:
                erased = self.erasures.mask(logs.plan.entity, logs.ids, logs.slots, produced_us)
                merging = merging if erased is None else merging & ~erased
            new.append(merging)
            additions.append(LogAdditions(logs, self.reader.keys.event_log(logs.plan.entity), records, merging))
        trimmed = await trim_logs(self.writer, self.reader.keys, snapshot, sources, next(self._turns))
        appends = PendingAppends(additions, trimmed)
        values = np.empty((len(columns), self.plan.width))
        together = [one.logs.with_more(one.records[one.merging], one.logs.slots[one.merging]) for one in additions]

        async def evaluate() -> None:
            # While Redis appends a chunk, a step is evaluated.
            for _ in self._evaluator.steps(columns, together, values):
                await asyncio.sleep(0)

        await _both(self._append(batch, beyond, appends), evaluate())
        MERGED_EVENTS.inc(int(beyond.sum()))
        DUPLICATE_EVENTS.inc(int((beyond & ~np.any(new, axis=0)).sum()) if new else 0)
        newest = max(snapshot.newest_us, int(produced_us.max()))
        merged = snapshot.fences | {f"{EVENTS}/{p}": self.progress[p].fence for p, _ in batch}
        positions = [_positions(merged, newest)]
        evaluated = np.zeros(len(columns), np.int64)
        late = self._late(columns, sources)
        again = appends.overtaken()
        if len(again):
            # Another worker wrote to these keys between our read and our write: evaluate on what is there now.
            OVERTAKEN_EVENTS.inc(len(again))
            some = columns.take(again)
            snapshot = await self._read(some)
            self._check_fences(batch, snapshot)
            values[again] = self._evaluator.vectors(some, snapshot.entities)
            positions.append(_positions(snapshot.fences, max(newest, snapshot.newest_us)))
            evaluated[again] = 1
            late[again] = self._late(some, _sources(snapshot))
        return EvaluatedBatch(values, tuple(positions), evaluated, late)

    async def advance(self, partition: int, through: int, guard: TimeGuard) -> None:
        """Move the fence over records that add nothing to the state: rejected ones, markers of transactions.

        Without it an idle partition whose last records were such ones would look, once they have left the topic, as if
        something was missing.

        Args:
            partition: of `events`.
            through: offset up to which everything is handled.
            guard: the partition's guard there.

        Raises:
            FenceMovedError: the fence is not where this worker left it.
        """
        progress = self.progress[partition]
        if through > progress.fence:
            state = progress.encode(guard)
            await self.writer.append(f"{EVENTS}/{partition}", progress.fence, through, state, 0, {})
            progress.fence = through

    async def set_idle(self, partition: int, guard: TimeGuard) -> bool:
        """Say of a partition that nothing comes from it, if it holds others back; whether it does.

        An event that comes all the same takes that back. It is late if logs were trimmed meanwhile of what it needs.

        Args:
            partition: of `events`; all of it is committed.
            guard: the partition's guard there.

        Raises:
            FenceMovedError: the fence is not where this worker left it.
        """
        source, progress = f"{EVENTS}/{partition}", self.progress[partition]
        if progress.fence == NOTHING_MERGED:  # it has had no events, and never counted
            return False
        sources = _sources(await self._read(EventColumns.from_rows(self.plan.pipeline.event, [], [], [], [])))
        others = [decode_source(text)[0].confirmed for name, text in sources.items() if name.startswith(EVENT_SOURCES)]
        if max(others, default=0) - progress.committed_highest <= self.plan.pipeline.lateness:
            return False
        await self.writer.append(source, progress.fence, progress.fence, progress.encode(guard, idle=True), 0, {})
        return True

    def _late(self, columns: EventColumns, sources: Mapping[str, str]) -> BoolArray:
        return columns.times < int(sources.get(TRIMMED, 0)) - self.plan.pipeline.lateness

    async def _read(self, columns: EventColumns) -> StateSnapshot:
        return await self.reader.read(columns, [("HGETALL", self.reader.keys.sources)])

    def _check_fences(self, batch: Sequence[tuple[int, AcceptedEvents]], snapshot: StateSnapshot) -> None:
        for partition, _ in batch:
            source, expected = f"{EVENTS}/{partition}", self.progress[partition].fence
            found = snapshot.fences.get(source, NOTHING_MERGED)
            if found != expected:
                raise FenceMovedError(source, expected, str(found))

    async def _append(
        self, batch: Sequence[tuple[int, AcceptedEvents]], beyond: BoolArray, appends: PendingAppends
    ) -> None:
        """Append what is new, in chunks of much the same size: none takes longer than it must."""
        first = 0
        for partition, events in batch:
            new = np.flatnonzero(beyond[first : first + len(events)])
            progress = self.progress[partition]
            for chunk in np.array_split(new, -(-len(new) // self.chunk_events)) if len(new) else ():
                last = int(chunk[-1])
                fence = int(events.offsets[last])
                state = progress.encode(events.guards.after(last))
                newest = int(events.produced_us[chunk].max())
                deltas, known = appends.take(chunk + first)
                source = f"{EVENTS}/{partition}"
                appends.found(await self.writer.append(source, progress.fence, fence, state, newest, deltas, known))
                progress.fence = fence
            first += len(events)


async def _both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Run two at a time. Both are waited for, and then what failed is raised by itself."""
    results = await asyncio.gather(first, second, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("tuple[A, B]", tuple(results))


def _sources(snapshot: StateSnapshot) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in pairs(snapshot.replies[0])}


def joined_batches(parts: Sequence[EvaluatedBatch]) -> EvaluatedBatch:
    """Batches behind each other as one."""
    firsts = np.cumsum([0, *(len(part.positions) for part in parts[:-1])])
    return EvaluatedBatch(
        np.concatenate([part.values for part in parts]),
        tuple(positions for part in parts for positions in part.positions),
        np.concatenate([part.evaluated + first for part, first in zip(parts, firsts, strict=True)]),
        np.concatenate([part.late for part in parts]),
    )


def _positions(fences: dict[str, int], newest_us: int) -> StatePositions:
    return StatePositions(positions_of(fences, EVENTS), positions_of(fences, OUTCOMES), newest_us)
