"""Recomputation of served vectors from the logs, written like the definition: the yardstick for parity.

It shares nothing with `windows` but the layout of labels. Every window is found by comparing each event with each
query of the same key, so it is slow (quadratic per key) and has nothing to go wrong. What is asked of the covered
events is in `aggregations.definitions`; counts, sums, means and labels, which most features are, are taken over whole
matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.pipeline.aggregations.definitions import Asked, CoveredEvent
from headrace.pipeline.aggregations.lanes import checked_filter
from headrace.pipeline.events import EventColumns, FloatArray, Int64Array, hash_ids
from headrace.pipeline.schema import Field
from headrace.pipeline.state import CompiledAggregation, EntityPlan, FeaturePlan, Records, label_records

BoolArray = npt.NDArray[np.bool_]


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
        hashes = hash_ids(history.events.ids)
        label_keys = labels.entities[entity_names.index(entity.entity)]
        groups = _by_key(queries.texts[entity.field], history.events.texts[entity.field], label_keys)
        for rows, found, labels_of_key in groups:
            of_key = found[np.lexsort((history.offsets[found], history.partitions[found]))]
            merged = _merged(positions.events, rows, history.partitions[of_key], history.offsets[of_key])
            _drop_duplicates(merged, hashes[of_key])
            known = _merged(positions.outcomes, rows, labels.partitions[labels_of_key], labels.offsets[labels_of_key])
            out[rows, entity.columns] = _of_one_key(
                entity,
                queries.take(rows),
                history.events.take(of_key),
                hashes[of_key],
                merged,
                additions[labels_of_key],
                known,
            )
    plan.derived_values(out)
    return out


def _of_one_key(
    plan: EntityPlan,
    queries: EventColumns,
    events: EventColumns,
    hashes: npt.NDArray[np.uint64],
    merged: BoolArray,
    labels: Records,
    known: BoolArray,
) -> FloatArray:
    """Features of one key for its queries, shape (rows, aggregations)."""
    times = queries.times
    known = known & (labels["known"] <= times[:, None])
    out = np.empty((len(queries), len(plan.aggregations)))
    for column, aggregation in enumerate(plan.compiled):
        inside = merged & _covers(aggregation, times, events.times)
        if aggregation.operation.from_labels:
            covered = known & _covers(aggregation, times, labels["time"])
            out[:, column] = _of_labels(aggregation, inside, covered, labels)
        else:
            covered = inside & _counts(aggregation, events)
            itself = _counts(aggregation, queries)
            if not aggregation.operation.itself or aggregation.range.delay:
                itself = np.zeros(len(queries), np.bool_)
            evaluate = _of_sums if aggregation.operation.name in ("count", "sum", "mean") else _of_each
            out[:, column] = evaluate(aggregation, covered, events, hashes, itself, queries)
    return out


def _covers(aggregation: CompiledAggregation, asked: Int64Array, times: Int64Array) -> BoolArray:
    """Whether the window of each event that asks covers each time, the event itself apart, shape (rows, times)."""
    declared = aggregation.declared
    end = asked[:, None] - declared.delay
    begins = times // declared.hop > (end - declared.window) // declared.hop
    return begins & ((times // declared.hop <= end // declared.hop) if declared.delay else (times < end))


def _counts(aggregation: CompiledAggregation, events: EventColumns) -> BoolArray:
    """Which events the filter lets through and have the field, shape (n,)."""
    where, field = aggregation.declared.where, aggregation.field
    counts = np.ones(len(events), np.bool_) if where is None else checked_filter(where, events)
    if field is None or not field.optional:
        return counts
    if field.kind == "text":
        return counts & np.array([bool(text) for text in events.texts[field.name]], np.bool_)
    return counts & ~np.isnan(events.numbers[field.name])


def _of_sums(
    aggregation: CompiledAggregation,
    covered: BoolArray,
    events: EventColumns,
    hashes: npt.NDArray[np.uint64],
    itself: BoolArray,
    queries: EventColumns,
) -> FloatArray:
    """Counts, sums and means, shape (rows,)."""
    counts = covered.sum(1, dtype=np.int64) + itself
    if aggregation.field is None:
        return np.asarray(counts, np.float64)
    past = np.where(covered, _integers(aggregation.field, events), 0).sum(1)
    summed = past + np.where(itself, _integers(aggregation.field, queries), 0)
    if aggregation.operation.name == "sum":
        return np.asarray(summed / aggregation.scale)
    default = aggregation.declared.default
    return np.where(counts > 0, summed / (np.maximum(counts, 1) * aggregation.scale), default)


def _of_each(
    aggregation: CompiledAggregation,
    covered: BoolArray,
    events: EventColumns,
    hashes: npt.NDArray[np.uint64],
    itself: BoolArray,
    queries: EventColumns,
) -> FloatArray:
    """Any aggregation by its definition, shape (rows,)."""
    declared, field = aggregation.declared, aggregation.field
    past = _covered_events(field, events, hashes)
    own = _covered_events(field, queries, hash_ids(queries.ids))
    out = np.empty(len(queries))
    for row, now in enumerate(queries.times.tolist()):
        those = [past[at] for at in np.flatnonzero(covered[row]).tolist()] + ([own[row]] if itself[row] else [])
        those.sort(key=lambda event: (event.time, event.id))
        asked = Asked(now, declared.delay, aggregation.scale, declared.half_life, declared.share, declared.default)
        out[row] = aggregation.operation.definition(those, asked)
    return out


def _of_labels(aggregation: CompiledAggregation, inside: BoolArray, covered: BoolArray, labels: Records) -> FloatArray:
    """Label counts, rates and means, shape (rows,)."""
    labelled = (covered * labels["labelled"].astype(np.int64)).sum(1)
    positive = (covered * labels["positive"].astype(np.int64)).sum(1)
    if aggregation.operation.name == "label_count":
        return np.asarray(positive, np.float64)
    over = labelled if aggregation.declared.over == "labelled" else inside.sum(1, dtype=np.int64)
    return np.where(over > 0, positive / np.maximum(over, 1), aggregation.declared.default)


def _integers(field: Field, events: EventColumns) -> Int64Array:
    """A field in integer units, 0 where it is absent, shape (n,)."""
    values = np.nan_to_num(events.numbers[field.name], nan=0.0)
    return np.rint(values * field.scale if field.kind == "number" else values).astype(np.int64)


def _covered_events(field: Field | None, events: EventColumns, hashes: npt.NDArray[np.uint64]) -> list[CoveredEvent]:
    values: Sequence[int | str] = [0] * len(events)
    if field is not None:
        values = events.texts[field.name] if field.kind == "text" else _integers(field, events).tolist()
    return [CoveredEvent(*one) for one in zip(events.times.tolist(), hashes.tolist(), values, strict=True)]


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
