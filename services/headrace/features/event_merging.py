"""A batch of events into the state and out as vectors. Knows Redis through reader and writer, and nothing of Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.features.duplicates import find_duplicates
from headrace.features.errors import FenceMovedError
from headrace.features.log_rewriting import trim_logs
from headrace.features.metrics import DUPLICATE_EVENTS, MERGED_EVENTS, OVERTAKEN_BATCHES
from headrace.features.state_writer import KnownLogs, StateWriter
from headrace.features.time_guard import TimeGuard
from headrace.pipeline.events import EventColumns, FloatArray, hash_ids
from headrace.pipeline.state import FeaturePlan, Records
from headrace.pipeline.windows import feature_vectors
from headrace.platform.event_codec import CheckedEvent, event_columns
from headrace.platform.feature_state import EVENTS, FeatureStateReader, StateSnapshot

NOTHING_MERGED = -1


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    """An event that the schema and the time guard let through.

    Attributes:
        offset: its offset.
        produced_us: its Kafka timestamp in microseconds.
        key: its Kafka key.
        event: the event.
        guard: the partition's guard after it.
        late: whether windows at its time may be incomplete already.
    """

    offset: int
    produced_us: int
    key: bytes | None
    event: CheckedEvent
    guard: TimeGuard
    late: bool = False


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

    def encode(self, guard: TimeGuard) -> str:
        """What is stored beside the fence: the guard, and the committed event time."""
        return f"{guard.encode()}:{self.committed_highest}"


def decode_source(text: str) -> tuple[TimeGuard, int]:
    """Guard and committed event time from what is stored beside a fence; fresh ones from the empty string."""
    guard, _, committed = text.rpartition(":")
    return TimeGuard.decode(guard), int(committed or 0)


@dataclass(frozen=True)
class EvaluatedBatch:
    """Vectors of a batch.

    Attributes:
        values: one row per event in the order of the batch, shape (n, features).
        event_positions: state positions that they hold at.
        outcome_positions: the same for `outcomes`.
        newest_us: production time of the newest record in the state, in microseconds.
    """

    values: FloatArray
    event_positions: list[int]
    outcome_positions: list[int]
    newest_us: int


@dataclass
class EventMerger:
    """Merges events into the logs of their entities and evaluates them.

    Attributes:
        plan: the compiled pipeline.
        reader: reads the state.
        writer: writes it.
        chunk_events: events per script: small ones let other readers in between.
        progress: of each assigned partition.
    """

    plan: FeaturePlan
    reader: FeatureStateReader
    writer: StateWriter
    chunk_events: int
    progress: dict[int, PartitionProgress] = field(default_factory=dict)

    async def merge(self, batch: Sequence[tuple[int, Sequence[AcceptedEvent]]]) -> EvaluatedBatch:
        """Merge what lies beyond the fences, and evaluate everything.

        Args:
            batch: partitions with their events in offset order.

        Raises:
            FenceMovedError: a fence is not where this worker left it. What was written is behind its fence.
            redis.RedisError: the state could not be reached.
        """
        rows = [event for _, events in batch for event in events]
        partitions = np.repeat([p for p, _ in batch], [len(events) for _, events in batch])
        columns = event_columns(self.plan.pipeline, [row.event for row in rows])
        offsets = np.array([row.offset for row in rows], np.int64)
        fences = np.array([self.progress[int(p)].fence for p in partitions], np.int64)
        beyond = offsets > fences
        snapshot = await self._read(columns)
        self._check_fences(batch, snapshot)
        hashes = hash_ids(columns.ids)
        records: list[Records] = []
        merging = np.zeros((len(self.plan.entities), len(rows)), np.bool_)
        states = []
        for i, logs in enumerate(snapshot.entities):
            merging[i] = beyond & ~find_duplicates(logs, hashes, beyond)
            records.append(logs.plan.event_records(columns, hashes))
            states.append(logs.state(records[i][merging[i]], logs.slots[merging[i]]))
        values = feature_vectors(self.plan, columns, states)
        sources = {name.decode(): value.decode() for name, value in snapshot.replies[0].items()}
        lengths, rewritten = await trim_logs(self.writer, self.reader.keys, snapshot, sources)
        read = [list(of_entity) for of_entity in lengths]
        overtaken = False
        first = 0
        for partition, events in batch:
            chunks = range(first, first + len(events), self.chunk_events)
            for start in chunks:
                chunk = np.arange(start, min(start + self.chunk_events, first + len(events)))
                overtaken |= await self._append(
                    partition, rows, chunk[beyond[chunk]], snapshot, records, merging, read, lengths, rewritten
                )
            first += len(events)
        MERGED_EVENTS.inc(int(beyond.sum()))
        DUPLICATE_EVENTS.inc(int((beyond & ~merging.any(0)).sum()) if len(merging) else 0)
        if overtaken:
            # Another worker wrote to one of these keys between our read and our write: evaluate on what is there now.
            OVERTAKEN_BATCHES.inc()
            snapshot = await self._read(columns)
            self._check_fences(batch, snapshot)
            values = feature_vectors(self.plan, columns, [logs.state() for logs in snapshot.entities])
        newest = max([snapshot.newest_us, *(row.produced_us for row in rows)])
        merged = snapshot.fences | {f"{EVENTS}/{p}": self.progress[p].fence for p, _ in batch}
        after = StateSnapshot(snapshot.entities, merged, newest, [])
        return EvaluatedBatch(values, after.positions(EVENTS), after.positions("outcomes"), newest)

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

    async def _read(self, columns: EventColumns) -> StateSnapshot:
        return await self.reader.read(columns, [("HGETALL", self.reader.keys.sources)])

    def _check_fences(self, batch: Sequence[tuple[int, Sequence[AcceptedEvent]]], snapshot: StateSnapshot) -> None:
        for partition, _ in batch:
            source, expected = f"{EVENTS}/{partition}", self.progress[partition].fence
            found = snapshot.fences.get(source, NOTHING_MERGED)
            if found != expected:
                raise FenceMovedError(source, expected, str(found))

    async def _append(
        self,
        partition: int,
        rows: Sequence[AcceptedEvent],
        chunk: np.ndarray[tuple[int], np.dtype[np.intp]],
        snapshot: StateSnapshot,
        records: Sequence[Records],
        merging: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
        read: Sequence[list[int]],
        lengths: Sequence[list[int]],
        rewritten: int,
    ) -> bool:
        """Append one chunk of one partition; returns whether another writer came between."""
        if not len(chunk):
            return False
        deltas: dict[str, bytes] = {}
        known: dict[str, tuple[int, int, int]] = {}
        for i, logs in enumerate(snapshot.entities):
            prefix = self.reader.keys.event_log(logs.plan.entity)
            for row in chunk[merging[i, chunk]].tolist():
                slot = int(logs.slots[row])
                name = prefix + logs.ids[slot]
                deltas[name] = deltas.get(name, b"") + records[i][row : row + 1].tobytes()
                lengths[i][slot] += records[i].itemsize
                known[name] = read[i][slot], records[i].itemsize, lengths[i][slot]
        progress, last = self.progress[partition], rows[int(chunk[-1])]
        newest = max(rows[row].produced_us for row in chunk.tolist())
        state = progress.encode(last.guard)
        found = None
        if known:
            lengths_read, sizes, after = (list(column) for column in zip(*known.values(), strict=True))
            found = KnownLogs(lengths_read, sizes, after, rewritten)
        source = f"{EVENTS}/{partition}"
        appended = await self.writer.append(source, progress.fence, last.offset, state, newest, deltas, found)
        progress.fence = last.offset
        # A length alone is ambiguous: a log may have been trimmed and have grown again.
        return found is not None and (appended.lengths, appended.rewritten) != (found.appended, rewritten)
