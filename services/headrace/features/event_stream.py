"""`events` into state and vectors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headrace.features.accepted_events import AcceptedEvents, BoolArray
from headrace.features.assigned_source import AssignedSource, Batch
from headrace.features.data_quality import DataQuality
from headrace.features.decoding import decode_partition
from headrace.features.errors import FenceMovedError
from headrace.features.event_merging import EvaluatedBatch, EventMerger, PartitionProgress
from headrace.features.metrics import EVENT_TIME, LATE_EVENTS, REDELIVERED_EVENTS
from headrace.features.publishing import PartitionVectors, Publisher
from headrace.features.source_positions import StartingPoint
from headrace.features.time_guard import TimeGuard
from headrace.features.vector_encoding import VectorEncoder
from headrace.v1.event_pb2 import Rejected

if TYPE_CHECKING:
    from headrace.platform.topics import Topics


@dataclass
class _Partition:
    guard: TimeGuard
    committed: int
    next_offset: int
    heard_at: float
    idle: bool = False


class EventStream:
    """Handles the batches of `events`: decode, merge, evaluate, publish, commit, in this order."""

    def __init__(
        self,
        merger: EventMerger,
        publisher: Publisher,
        topics: Topics,
        commit_interval_s: float,
        idle_after_s: float = 60.0,
    ) -> None:
        """Args:
        merger: the state.
        publisher: publishes vectors and rejected records.
        topics: names.
        commit_interval_s: longest time between commits while events flow, in seconds.
        idle_after_s: how long nothing comes from a partition until it holds trimming back no longer, in seconds.
        """
        self._merger = merger
        self._pipeline = merger.plan.pipeline
        self._publisher = publisher
        self._encoder = VectorEncoder(merger.plan.pipeline, topics.events)
        self._commit_interval_s = commit_interval_s
        self._idle_after_s = idle_after_s
        self.quality = DataQuality(self._pipeline.event, self._pipeline.entity_fields)
        self._partitions: dict[int, _Partition] = {}
        self._committed_at = time.monotonic()
        self._publishing: asyncio.Task[None] | None = None

    def assigned(self, points: Mapping[int, StartingPoint]) -> None:
        """Go on from these points, with these partitions only."""
        now = time.monotonic()
        self._partitions = {p: _Partition(s.guard, s.committed, s.offset, now) for p, s in points.items()}
        self._merger.progress = {p: PartitionProgress(s.fence, s.committed_highest) for p, s in points.items()}

    def fences(self) -> Mapping[int, int]:
        """Last merged offset of each assigned partition, as this worker left it."""
        return {partition: progress.fence for partition, progress in self._merger.progress.items()}

    def event_time(self, partition: int) -> int:
        """Highest event time accepted of a partition, in microseconds."""
        return self._partitions[partition].guard.highest

    async def process(self, source: AssignedSource, batch: Batch) -> None:
        """Handle a batch.

        Raises:
            FenceMovedError: a fence is not where this worker left it.
            KafkaFault: the results of the batch before were not published.
            redis.RedisError: the state could not be reached.
        """
        accepted: list[tuple[int, AcceptedEvents]] = []
        rejected: list[Rejected] = []
        guards: dict[int, TimeGuard] = {}
        for partition in sorted(batch, key=self.event_time):
            known = self._partitions[partition]
            decoded = decode_partition(self._pipeline, batch[partition].records, known.guard)
            guards[partition] = decoded.guard
            if len(decoded.accepted):
                accepted.append((partition, decoded.accepted))
            rejected += [r for r in decoded.rejected if r.source.offset >= known.committed]
            self.quality.observe(decoded.accepted.columns)
            LATE_EVENTS.inc(int(decoded.accepted.late.sum()))
        for record in rejected:
            self.quality.refuse(record.field, record.reason)
        evaluated = None
        if accepted:
            self._count_redelivered(accepted)
            evaluated = await self._merger.merge(accepted)
        for partition, guard in guards.items():
            await self._merger.advance(partition, batch[partition].through, guard)
        # The next batch is read and merged while this one is encoded and stored; at most one is on its way.
        await self._published()
        wanted = [
            (partition, events, (events.offsets >= self._partitions[partition].committed) & ~events.answered)
            for partition, events in accepted
        ]
        self._publishing = asyncio.create_task(self._publish(wanted, evaluated, rejected), name="publish-vectors")
        for partition, guard in guards.items():
            self._partitions[partition].guard = guard
            self._partitions[partition].next_offset = batch[partition].through + 1
            self._partitions[partition].heard_at = time.monotonic()
            self._partitions[partition].idle = False
            EVENT_TIME.labels(partition).set(guard.highest / 1e6)
        if time.monotonic() - self._committed_at >= self._commit_interval_s:
            await self.commit(source)

    async def commit(self, source: AssignedSource) -> None:
        """Commit what is published, all that was handled.

        Raises:
            KafkaFault: the results of the last batch were not published.
        """
        await self._published()
        due = {p: known for p, known in self._partitions.items() if known.next_offset > known.committed}
        if due and await source.commit({p: (one.next_offset, one.guard.encode()) for p, one in due.items()}):
            for partition, known in due.items():
                known.committed = known.next_offset
                self._merger.progress[partition].committed_highest = known.guard.confirmed
        self._committed_at = time.monotonic()
        with suppress(FenceMovedError):  # who reads or looks next finds it too, and seeks
            await self._set_idle()

    async def close(self) -> None:
        """Give up what is still on its way: it is not committed, and published again."""
        if self._publishing is not None:
            self._publishing.cancel()
            await asyncio.wait([self._publishing])
            self._publishing = None

    async def _published(self) -> None:
        """Wait until the results of the last batch are stored."""
        if self._publishing is not None:
            # Waiting may be cancelled, publishing is not.
            await asyncio.wait([self._publishing])
            publishing, self._publishing = self._publishing, None
            publishing.result()

    async def _set_idle(self) -> None:
        now = time.monotonic()
        for partition, known in self._partitions.items():
            if not known.idle and known.next_offset == known.committed and now - known.heard_at > self._idle_after_s:
                known.heard_at = now  # where it holds nothing back, it is looked at again after the same time
                known.idle = await self._merger.set_idle(partition, known.guard)

    def _count_redelivered(self, accepted: Sequence[tuple[int, AcceptedEvents]]) -> None:
        for partition, events in accepted:
            REDELIVERED_EVENTS.inc(int((events.offsets <= self._merger.progress[partition].fence).sum()))

    async def _publish(
        self,
        wanted: Sequence[tuple[int, AcceptedEvents, BoolArray]],
        evaluated: EvaluatedBatch | None,
        rejected: Sequence[Rejected],
    ) -> None:
        vectors = [] if evaluated is None else self._vectors(wanted, evaluated)
        await self._publisher.publish(vectors, rejected)

    def _vectors(
        self, batch: Sequence[tuple[int, AcceptedEvents, BoolArray]], evaluated: EvaluatedBatch
    ) -> list[PartitionVectors]:
        """Vectors to publish: of events that are not published yet, and that nobody has answered."""
        vectors, first = [], 0
        for partition, events, wanted in batch:
            rows = np.flatnonzero(wanted)
            encoded = [b""] * len(rows)
            of_batch = rows + first
            for number, positions in enumerate(evaluated.positions):
                mine = np.flatnonzero(evaluated.evaluated[of_batch] == number)
                if not len(mine):
                    continue
                some = rows[mine]
                found = self._encoder.encode(
                    partition,
                    events.columns.take(some) if len(some) < len(events) else events.columns,
                    events.offsets[some],
                    events.produced_us[some],
                    evaluated.values[of_batch[mine]],
                    positions,
                    (events.late[some] | evaluated.late[of_batch[mine]]).tolist(),
                )
                for at, vector in zip(mine.tolist(), found, strict=True):
                    encoded[at] = vector
            keys = events.keys if wanted.all() else [events.keys[row] for row in rows.tolist()]
            vectors.append(PartitionVectors(partition, keys, encoded))
            first += len(events)
        return vectors
