"""Recomputation of served vectors at the positions of the state that they recorded, for long logs.

Every query gets the log that its key had at its positions, cut to what its windows can reach, and the library
evaluates it. What it gives equals `headrace.pipeline.recompute`, which is written like the definition and quadratic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.offline.entity_features import entity_only
from headrace.offline.progress import Progress, untold
from headrace.pipeline import EventColumns
from headrace.pipeline.events import FloatArray, Int64Array, hash_ids
from headrace.pipeline.recompute import EventHistory, LabelHistory, Positions
from headrace.pipeline.state import LABEL_RECORD, EntityPlan, FeaturePlan, Records, label_records
from headrace.pipeline.windows import EntityState, SortedLog, feature_vectors

CHUNK_RECORDS = 1_000_000
CHUNK_LOGS = 20_000
LARGEST_ORDER = 2**62

Rows = npt.NDArray[np.intp]


def recompute_at(
    plan: FeaturePlan,
    queries: EventColumns,
    positions: Positions,
    history: EventHistory,
    labels: LabelHistory,
    progress: Progress = untold,
) -> FloatArray:
    """The vectors that n events should have been given, shape (n, features).

    Args:
        plan: the compiled pipeline.
        queries: the events whose vectors are wanted.
        positions: what was merged when each was evaluated.
        history: all events.
        labels: all outcomes of ingested events.
        progress: told of queries, once per entity.
    """
    out = np.empty((len(queries), plan.width))
    if not len(queries):
        return out
    plan.on_demand_values(queries, out)
    hashes = hash_ids(history.events.ids)
    additions = label_records(labels.ids, labels.times, labels.known, labels.values, labels.previous)
    names = [entity.name for entity in plan.pipeline.entities]
    done, total = 0, len(queries) * len(plan.entities)
    for entity in plan.entities:
        codes: dict[str, int] = {}
        asked = _codes(codes, queries.texts[entity.field])
        events = _Log(
            _codes(codes, history.events.texts[entity.field]),
            entity.event_records(history.events, hashes),
            history.partitions,
            history.offsets,
        )
        of_labels = None
        if entity.has_labels:
            needed = additions["positive"] != 0
            if entity.keeps_negatives:
                needed |= additions["labelled"] != 0
            keys = _codes(codes, labels.entities[names.index(entity.entity)])
            of_labels = _Log(keys[needed], additions[needed], labels.partitions[needed], labels.offsets[needed])
        for rows, values in _of_entity(plan, entity, queries, asked, positions, events, of_labels):
            out[rows, entity.columns] = values[:, entity.columns]
            done += len(rows)
            progress(done, total)
    plan.derived_values(out)
    return out


class _Log:
    """The records of all keys, sorted by key and time."""

    def __init__(self, keys: Int64Array, records: Records, partitions: Int64Array, offsets: Int64Array) -> None:
        self._times = np.unique(records["time"])
        rank = np.searchsorted(self._times, records["time"])
        order = keys * (len(self._times) + 1) + rank
        by = np.argsort(order, kind="stable")
        self._order = order[by]
        self.records = records[by]
        self.partitions, self.offsets = partitions[by], offsets[by]
        self._keys = keys[by]
        self.copies = _copies(self._keys, self.records["id"])

    def between(self, keys: Int64Array, low: Int64Array, high: Int64Array) -> tuple[Rows, Rows]:
        """For each key the positions of its records from time `low` to time `high`, the end excluded."""
        base = keys * (len(self._times) + 1)
        first = np.searchsorted(self._order, base + np.searchsorted(self._times, low, "left"), "left")
        last = np.searchsorted(self._order, base + np.searchsorted(self._times, high, "right"), "left")
        return first, np.maximum(last, first)

    def merged(self, first: Rows, last: Rows, upto: Int64Array | None) -> tuple[Rows, Int64Array]:
        """The records that each of k logs had, and the number of the log of each.

        Args:
            first, last: positions of the candidates of each log, shape (k,).
            upto: last merged offset of each log by partition, shape (k, partitions); None for everything.
        """
        sizes = last - first
        log = np.repeat(np.arange(len(sizes)), sizes)
        at = np.arange(len(log)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(first, sizes)
        if upto is not None:
            was = self.offsets[at] <= upto[log, self.partitions[at]]
            log, at = log[was], at[was]
        return at, log

    def without_copies(self, at: Rows, log: Int64Array) -> tuple[Rows, Int64Array]:
        """Of records of one log with one id, the first by partition and offset alone."""
        suspects = np.flatnonzero(self.copies[at])
        if not len(suspects):
            return at, log
        of = at[suspects]
        ids = self.records["id"][of]
        order = np.lexsort((self.offsets[of], self.partitions[of], ids, log[suspects]))
        again = np.zeros(len(order), np.bool_)
        again[1:] = (np.diff(log[suspects][order]) == 0) & (ids[order][1:] == ids[order][:-1])
        keep = np.ones(len(at), np.bool_)
        keep[suspects[order[again]]] = False
        return at[keep], log[keep]


@dataclass(frozen=True)
class _Asked:
    """Queries that share a key and a state: one log each, in the order of the key.

    Attributes:
        rows: rows of the queries, by log.
        edges: where the queries of each log begin, and the end, shape (logs + 1,).
        keys: shape (logs,).
        low, high: earliest and latest query time of each, shape (logs,).
    """

    rows: Rows
    edges: Rows
    keys: Int64Array
    low: Int64Array
    high: Int64Array


def _of_entity(
    plan: FeaturePlan,
    entity: EntityPlan,
    queries: EventColumns,
    keys: Int64Array,
    positions: Positions,
    events: _Log,
    labels: _Log | None,
) -> Iterator[tuple[Rows, FloatArray]]:
    only = entity_only(plan, entity)
    asked = _logs_asked_for(keys, queries.times, positions)
    low = asked.low - entity.retention
    of_events = events.between(asked.keys, low, asked.high)
    of_labels = labels.between(asked.keys, low, asked.high) if labels is not None else None
    sizes = of_events[1] - of_events[0]
    if of_labels is not None:
        sizes = sizes + of_labels[1] - of_labels[0]
    span = int(asked.high.max() - low.min()) + 2
    for chunk in _chunks(sizes, min(CHUNK_LOGS, max(LARGEST_ORDER // span - 1, 1))):
        rows = asked.rows[asked.edges[chunk.start] : asked.edges[chunk.stop]]
        slots = np.repeat(np.arange(chunk.stop - chunk.start), np.diff(asked.edges[chunk.start : chunk.stop + 1]))
        heads = asked.rows[asked.edges[chunk.start : chunk.stop]]
        empty = [b""] * (chunk.stop - chunk.start)
        upto = None if positions.events is None else positions.events[heads]
        at, log = events.without_copies(*events.merged(of_events[0][chunk], of_events[1][chunk], upto))
        event_log = SortedLog.from_values(empty, entity.event_record, events.records[at], log)
        label_log = None
        if labels is not None and of_labels is not None:
            upto = None if positions.outcomes is None else positions.outcomes[heads]
            at, log = labels.merged(of_labels[0][chunk], of_labels[1][chunk], upto)
            label_log = SortedLog.from_values(empty, LABEL_RECORD, labels.records[at], log)
        yield rows, feature_vectors(only, queries.take(rows), [EntityState(slots, event_log, label_log)])


def _logs_asked_for(keys: Int64Array, times: Int64Array, positions: Positions) -> _Asked:
    known = [each for each in (positions.events, positions.outcomes) if each is not None]
    states = np.zeros(len(keys), np.int64)
    if known:
        states = np.unique(np.concatenate(known, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((times, states, keys))
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(keys[order]) != 0) | (np.diff(states[order]) != 0)
    edges = np.append(np.flatnonzero(new), len(order))
    return _Asked(order, edges, keys[order][edges[:-1]], times[order][edges[:-1]], times[order][edges[1:] - 1])


def _chunks(sizes: Rows, most_logs: int) -> Iterator[slice]:
    """Runs of logs that are evaluated together."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        end = int(np.searchsorted(ends, before + CHUNK_RECORDS, "right"))
        end = min(max(end, start + 1), start + most_logs, len(sizes))
        yield slice(start, end)
        start = end


def _copies(keys: Int64Array, ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Whether a record of the same key has the same id, shape (m,)."""
    order = np.lexsort((ids, keys))
    same = (np.diff(keys[order]) == 0) & (ids[order][1:] == ids[order][:-1])
    found = np.zeros(len(keys), np.bool_)
    found[order[1:][same]] = True
    found[order[:-1][same]] = True
    return found


def _codes(codes: dict[str, int], keys: Sequence[str]) -> Int64Array:
    return np.array([codes.setdefault(key, len(codes)) for key in keys], np.int64)
