"""Evaluation of windows over the logs of many keys at once.

All records of a batch's keys become one array sorted by (key, time). A window is a pair of positions found by binary
search, and a sum over it a difference of one running sum: exact, because lanes are integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.pipeline.events import EventColumns, FloatArray, Int64Array
from headrace.pipeline.features import Aggregation
from headrace.pipeline.state import HEADER_TIME, EntityPlan, FeaturePlan, Range, Records, lane_values


class SortedLog:
    """The records of several logs, sorted by (slot, time). A slot is the number of a key in the batch."""

    def __init__(self, records: Records, slots: Int64Array) -> None:
        """Sort.

        Args:
            records: structured records with a `time` column, headers included, shape (m,).
            slots: slot of each record, shape (m,).
        """
        events = records["time"] != HEADER_TIME
        if not events.all():
            records, slots = records[events], slots[events]
        self._base = int(records["time"].min()) if len(records) else 0
        self._span = (int(records["time"].max()) if len(records) else 0) - self._base + 2
        if len(slots) and (int(slots.max()) + 1) * self._span >= 2**63:
            raise ValueError("too many keys over too long a time for one evaluation; split the batch")
        order = slots * self._span + (records["time"] - self._base)
        by = np.argsort(order, kind="stable")
        self._order = order[by]
        self.records = records[by]
        self._sums: dict[str, Int64Array] = {}

    @staticmethod
    def from_values(values: Sequence[bytes], record: np.dtype[Any], more: Records, more_slots: Int64Array) -> SortedLog:
        """Logs as stored, with the batch's own records behind them.

        Args:
            values: one stored log per slot; empty for a key without one.
            record: layout.
            more: records that are not stored yet, shape (k,).
            more_slots: their slots, shape (k,).
        """
        lengths = np.fromiter(map(len, values), np.int64, len(values)) // record.itemsize
        stored = np.frombuffer(b"".join(values), record)
        slots = np.repeat(np.arange(len(values)), lengths)
        if len(more):
            stored, slots = np.concatenate([stored, more]), np.concatenate([slots, more_slots])
        return SortedLog(stored, slots)

    def after(self, slots: Int64Array, times: Int64Array) -> npt.NDArray[np.intp]:
        """For each query the position behind the last record of its slot at or before its time, shape (n,)."""
        return np.searchsorted(
            self._order, slots * self._span + np.clip(times - self._base, -1, self._span - 2), "right"
        )

    def sums(self, lane: str) -> Int64Array:
        """Running sums of a lane, with a leading 0, shape (m + 1,)."""
        if lane not in self._sums:
            self._sums[lane] = np.concatenate([[0], np.cumsum(self.records[lane], dtype=np.int64)])
        return self._sums[lane]


@dataclass(frozen=True)
class EntityState:
    """What is known of one entity's keys for a batch of n events.

    Attributes:
        slots: for each event the number of its key, shape (n,).
        events: event logs of the keys.
        labels: label logs of the keys, when the entity has any.
    """

    slots: Int64Array
    events: SortedLog
    labels: SortedLog | None


def feature_vectors(plan: FeaturePlan, events: EventColumns, states: Sequence[EntityState]) -> FloatArray:
    """The vectors of n events, shape (n, width).

    The logs may hold any records, those of the events themselves too: a window without delay takes the records before
    the event, and adds the event itself.

    Args:
        plan: the compiled pipeline.
        events: the events.
        states: one per entity of the plan.
    """
    out = np.empty((len(events), plan.width))
    plan.on_demand_values(events, out)
    for entity, state in zip(plan.entities, states, strict=True):
        out[:, entity.columns] = _evaluate(entity, events, state)
    return out


def _evaluate(plan: EntityPlan, events: EventColumns, state: EntityState) -> FloatArray:
    out = np.empty((len(events), len(plan.aggregations)))
    counts: dict[Range, Int64Array] = {}
    for column, aggregation in enumerate(plan.aggregations):
        window = plan.range_of(aggregation)
        low = state.events.after(state.slots, window.low(events.times))
        high = np.maximum(state.events.after(state.slots, window.high(events.times)), low)
        if window not in counts:
            counts[window] = (high - low).astype(np.int64) + (not window.delay)
        if aggregation.from_labels:
            labelled, positive = _labels(state, window, events.times)
            out[:, column] = label_value(aggregation, counts[window], labelled, positive)
        elif aggregation.operation == "count":
            out[:, column] = counts[window]
        else:
            lane = next(lane for lane in plan.lanes if lane.name == aggregation.of)
            running = state.events.sums(lane.name)
            summed = running[high] - running[low]
            if not window.delay:
                summed = summed + lane_values(lane, events.numbers[lane.name])
            out[:, column] = sum_value(aggregation, lane.scale, summed, counts[window])
    return out


def sum_value(aggregation: Aggregation, scale: int, summed: Int64Array, counts: Int64Array) -> FloatArray:
    """A sum or a mean in the field's own unit, rounded once, shape (n,)."""
    if aggregation.operation == "sum":
        return summed / scale
    return np.where(counts > 0, summed / (np.maximum(counts, 1) * scale), aggregation.default)


def label_value(aggregation: Aggregation, counts: Int64Array, labelled: Int64Array, positive: Int64Array) -> FloatArray:
    """A label count or rate, shape (n,)."""
    if aggregation.operation == "label_count":
        return positive.astype(np.float64)
    over = counts if aggregation.over == "all" else labelled
    return np.where(over > 0, positive / np.maximum(over, 1), aggregation.default)


def _labels(state: EntityState, window: Range, times: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Number of labels and of positives in each window that are known at the event's time, shapes (n,)."""
    log = state.labels
    assert log is not None
    low = log.after(state.slots, window.low(times))
    sizes = np.maximum(log.after(state.slots, window.high(times)) - low, 0)
    query = np.repeat(np.arange(len(times)), sizes)
    at = np.arange(len(query)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(low, sizes)
    known = log.records["known"][at] <= times[query]
    query, at = query[known], at[known]

    def summed(lane: str) -> Int64Array:
        return np.bincount(query, log.records[lane][at], len(times)).astype(np.int64)

    return summed("labelled"), summed("positive")
