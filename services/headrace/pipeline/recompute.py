"""Recomputation of served vectors from the logs, written like the definition: the yardstick for parity.

It shares with `windows` only the meaning of edges and the last division. Every window is found by comparing each event
with each query of the same key, so it is slow (quadratic per key) and has nothing to go wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.pipeline.events import EventColumns, FloatArray, Int64Array, hash_ids
from headrace.pipeline.state import EntityPlan, FeaturePlan, Records, label_records, lane_values
from headrace.pipeline.windows import label_value, sum_value


@dataclass(frozen=True)
class EventHistory:
    """Events as `events` has them.

    Attributes:
        events: m events, in any order.
        partitions: partition of each, shape (m,).
        offsets: offset of each, shape (m,).
    """

    events: EventColumns
    partitions: Int64Array
    offsets: Int64Array


@dataclass(frozen=True)
class LabelHistory:
    """Outcomes of ingested events as `outcomes` has them.

    Attributes:
        ids: event ids, k.
        entities: for each entity of the pipeline, the id of each outcome's entity.
        times: event times in microseconds, shape (k,).
        known: label times in microseconds, shape (k,).
        values: labels, shape (k,).
        previous: the label that is replaced, NaN where it is the first, shape (k,).
        partitions: partition of each, shape (k,).
        offsets: offset of each, shape (k,).
    """

    ids: Sequence[str]
    entities: Sequence[Sequence[str]]
    times: Int64Array
    known: Int64Array
    values: FloatArray
    previous: FloatArray
    partitions: Int64Array
    offsets: Int64Array


@dataclass(frozen=True)
class Positions:
    """State positions of n vectors: what was merged when each was evaluated.

    Attributes:
        events: last merged offset per partition of `events`, shape (n, partitions); None for everything.
        outcomes: the same for `outcomes`.
    """

    events: Int64Array | None = None
    outcomes: Int64Array | None = None


def recompute(
    plan: FeaturePlan, queries: EventColumns, positions: Positions, history: EventHistory, labels: LabelHistory
) -> FloatArray:
    """The vectors that n events should have been given, shape (n, width).

    Args:
        plan: the compiled pipeline.
        queries: the events whose vectors are wanted.
        positions: what was merged when each was evaluated.
        history: all events.
        labels: all outcomes of ingested events.
    """
    out = np.empty((len(queries), plan.width))
    plan.on_demand_values(queries, out)
    additions = label_records(labels.ids, labels.times, labels.known, labels.values, labels.previous)
    entity_names = [entity.name for entity in plan.pipeline.entities]
    for entity in plan.entities:
        records = entity.event_records(history.events, hash_ids(history.events.ids))
        label_keys = labels.entities[entity_names.index(entity.entity)]
        groups = _by_key(queries.texts[entity.field], history.events.texts[entity.field], label_keys)
        for rows, found, labels_of_key in groups:
            of_key = found[np.lexsort((history.offsets[found], history.partitions[found]))]
            merged = _merged(positions.events, rows, history.partitions[of_key], history.offsets[of_key])
            _drop_duplicates(merged, records["id"][of_key])
            known = _merged(positions.outcomes, rows, labels.partitions[labels_of_key], labels.offsets[labels_of_key])
            out[rows, entity.columns] = _of_one_key(
                entity, queries, rows, records[of_key], merged, additions[labels_of_key], known
            )
    return out


def _of_one_key(
    plan: EntityPlan,
    queries: EventColumns,
    rows: npt.NDArray[np.intp],
    events: Records,
    merged: npt.NDArray[np.bool_],
    labels: Records,
    known: npt.NDArray[np.bool_],
) -> FloatArray:
    """Features of one key for its queries, shape (rows, aggregations)."""
    times = queries.times[rows]
    known = known & (labels["known"] <= times[:, None])
    out = np.empty((len(rows), len(plan.aggregations)))
    for column, aggregation in enumerate(plan.aggregations):
        window = plan.range_of(aggregation)
        low, high = window.low(times)[:, None], window.high(times)[:, None]
        inside = merged & (events["time"] > low) & (events["time"] <= high)
        counts = inside.sum(1, dtype=np.int64) + (not window.delay)
        if aggregation.from_labels:
            covered = known & (labels["time"] > low) & (labels["time"] <= high)
            labelled = (covered * labels["labelled"].astype(np.int64)).sum(1)
            positive = (covered * labels["positive"].astype(np.int64)).sum(1)
            out[:, column] = label_value(aggregation, counts, labelled, positive)
        elif aggregation.operation == "count":
            out[:, column] = counts
        else:
            lane = next(lane for lane in plan.lanes if lane.name == aggregation.of)
            summed = (inside * events[lane.name].astype(np.int64)).sum(1)
            if not window.delay:
                summed = summed + lane_values(lane, queries.numbers[lane.name][rows])
            out[:, column] = sum_value(aggregation, lane.scale, summed, counts)
    return out


def _merged(
    positions: Int64Array | None, rows: npt.NDArray[np.intp], partitions: Int64Array, offsets: Int64Array
) -> npt.NDArray[np.bool_]:
    """Whether each record was merged for each query, shape (rows, records)."""
    if positions is None:
        return np.ones((len(rows), len(offsets)), np.bool_)
    return offsets <= positions[rows][:, partitions]


def _drop_duplicates(merged: npt.NDArray[np.bool_], ids: npt.NDArray[np.uint64]) -> None:
    """Let one record of each id count for each query, shape (rows, records).

    Which one does not matter as long as copies of an event are equal; the records come in offset order by partition.
    """
    unique, counts = np.unique(ids, return_counts=True)
    for repeated in unique[counts > 1]:
        copies = np.flatnonzero(ids == repeated)
        counted = merged[:, copies[0]].copy()
        for copy in copies[1:]:
            merged[:, copy] &= ~counted
            counted |= merged[:, copy]


def _by_key(
    queries: Sequence[str], events: Sequence[str], labels: Sequence[str]
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """For each key that is asked for: its rows among the queries, the events and the labels."""
    codes: dict[str, int] = {}
    columns = [
        np.array([codes.setdefault(key, len(codes)) for key in keys], np.int64) for keys in (queries, events, labels)
    ]
    orders = [np.argsort(column, kind="stable") for column in columns]
    edges = [
        np.searchsorted(column[order], np.arange(len(codes) + 1)) for column, order in zip(columns, orders, strict=True)
    ]
    for code in np.unique(columns[0]).tolist():
        of_queries, of_events, of_labels = (
            order[edge[code] : edge[code + 1]] for order, edge in zip(orders, edges, strict=True)
        )
        yield of_queries, of_events, of_labels
