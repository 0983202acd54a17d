"""Large batches of events straight into the logs, without evaluation: how a state is built from history."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.features.duplicates import find_duplicates
from headrace.features.erasures import Erasures
from headrace.features.errors import FenceMovedError
from headrace.features.log_rewriting import trim_logs
from headrace.features.state_writer import StateWriter
from headrace.pipeline.events import EventColumns, Int64Array, hash_ids
from headrace.pipeline.state import FeaturePlan, Records
from headrace.pipeline.stored_logs import EntityLogs
from headrace.platform.feature_state import FeatureStateReader, pairs

Rows = npt.NDArray[np.intp]
Selected = npt.NDArray[np.bool_]
NOTHING_MERGED = -1


@dataclass(frozen=True)
class BulkEvents:
    """n events of one source, in order.

    Attributes:
        offsets: their offsets, shape (n,).
        columns: the events.
        produced_us: when they were produced, in microseconds, shape (n,).
        label_rows: for each label the event that it belongs to, ascending, shape (k,).
        labels: what the labels add to the label logs, shape (k,).
    """

    offsets: Int64Array
    columns: EventColumns
    produced_us: Int64Array
    label_rows: Rows
    labels: Records


@dataclass
class BulkMerger:
    """Appends batches of events to the logs of their entities, each event once.

    Attributes:
        plan: the compiled pipeline.
        reader: reads the state.
        writer: writes it.
        erasures: what must not enter the state again.
        chunk_events: events per script: between scripts other users of Redis get in.
    """

    plan: FeaturePlan
    reader: FeatureStateReader
    writer: StateWriter
    erasures: Erasures
    chunk_events: int

    async def merge(
        self, source: str, fence: int, events: BulkEvents, through: int, state: Callable[[int], str]
    ) -> int:
        """Merge a batch; the number of events that were duplicates of stored ones.

        Args:
            source: whose fence is moved, for example "events/0".
            fence: its last merged offset.
            events: events beyond the fence.
            through: offset up to which everything is handled: at least that of the last event.
            state: given the number of events that are merged, what belongs to the source then.

        Raises:
            FenceMovedError: the fence is not there. What was written is behind its fence.
            redis.RedisError: the state could not be reached.
        """
        n = len(events.columns)
        if not n:
            await self.writer.append(source, fence, through, state(0), 0, {})
            return 0
        snapshot = await self.reader.read(events.columns, [("HGETALL", self.reader.keys.sources)])
        if snapshot.fences.get(source, NOTHING_MERGED) != fence:
            raise FenceMovedError(source, fence, str(snapshot.fences.get(source, NOTHING_MERGED)))
        sources = {name.decode(): value.decode() for name, value in pairs(snapshot.replies[0])}
        await self.erasures.follow(sources)
        hashes = hash_ids(events.columns.ids)
        everything = np.ones(n, np.bool_)
        additions: list[tuple[EntityLogs, Records, Selected]] = []
        duplicates = everything
        for logs in snapshot.entities:
            erased = self.erasures.mask(logs.plan.entity, logs.ids, logs.slots, events.produced_us)
            kept = everything if erased is None else ~erased
            repeated = find_duplicates(logs, hashes, everything)
            duplicates = duplicates & repeated
            additions.append((logs, logs.plan.event_records(events.columns, hashes), kept & ~repeated))
        await trim_logs(self.writer, self.reader.keys, snapshot, sources)
        for start in range(0, n, self.chunk_events):
            end = min(start + self.chunk_events, n)
            deltas = self._deltas(events, additions, start, end)
            new_fence = through if end == n else int(events.offsets[end - 1])
            newest = int(events.produced_us[start:end].max())
            await self.writer.append(source, fence, new_fence, state(end), newest, deltas)
            fence = new_fence
        return int(duplicates.sum())

    def _deltas(
        self,
        events: BulkEvents,
        additions: list[tuple[EntityLogs, Records, Selected]],
        start: int,
        end: int,
    ) -> dict[str, bytes]:
        """What the events from `start` to `end` add, by log name."""
        deltas: dict[str, bytes] = {}
        first, last = np.searchsorted(events.label_rows, [start, end])
        for logs, records, merging in additions:
            rows = start + np.flatnonzero(merging[start:end])
            _add(deltas, self.reader.keys.event_log(logs.plan.entity), logs, records[rows], logs.slots[rows])
            if logs.plan.has_labels and last > first:
                of, labels = events.label_rows[first:last], events.labels[first:last]
                used = labels["positive"] != 0
                if logs.plan.keeps_negatives:
                    used |= labels["labelled"] != 0
                used &= merging[of]  # the labels of a stored event came with it
                name = self.reader.keys.label_log(logs.plan.entity)
                _add(deltas, name, logs, labels[used], logs.slots[of[used]])
        return deltas


def _add(deltas: dict[str, bytes], prefix: str, logs: EntityLogs, records: Records, slots: Int64Array) -> None:
    """Add records to the deltas of their logs, in order."""
    if not len(records):
        return
    by_slot = np.argsort(slots, kind="stable")
    slots, data, size = slots[by_slot], records[by_slot].tobytes(), records.itemsize
    edges = [0, *(np.flatnonzero(np.diff(slots)) + 1).tolist(), len(slots)]
    for begin, end in itertools.pairwise(edges):
        deltas[prefix + logs.ids[int(slots[begin])]] = data[begin * size : end * size]
