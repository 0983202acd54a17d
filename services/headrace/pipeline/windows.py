"""Evaluation of windows over the logs of many keys at once.

All records of a batch's keys become one array sorted by (key, time, id). A window is a pair of positions found by
binary search, each distinct edge once, and every measure of it is shared by the features that are made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.pipeline.aggregations.labels import known_labels
from headrace.pipeline.aggregations.measures import DenseMeasure, Measure, Parts
from headrace.pipeline.aggregations.sketches import SketchMeasure
from headrace.pipeline.events import EventColumns, FloatArray, Int64Array
from headrace.pipeline.sorted_logs import Positions, SortedLog, Span
from headrace.pipeline.state import CompiledAggregation, EntityPlan, FeaturePlan, Range, last_before

__all__ = ["EntityState", "SortedLog", "feature_vectors"]

MOST_EXPANDED = 1 << 22
"""Records that the windows of one evaluation may hold together where each must be looked at; beyond it the events are
evaluated in parts, so that memory stays bounded."""


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
        _evaluate(entity, events, state, out[:, entity.columns])
    plan.derived_values(out)
    return out


def _evaluate(plan: EntityPlan, events: EventColumns, state: EntityState, out: FloatArray) -> None:
    """Fill the columns of one entity, shape (n, aggregations)."""
    windows = _Windows(plan, events, state)
    if len(events) > 1 and windows.expanded() > MOST_EXPANDED:
        middle = len(events) // 2
        for half in (slice(0, middle), slice(middle, len(events))):
            rows = np.arange(len(events))[half]
            _evaluate(plan, events.take(rows), EntityState(state.slots[half], state.events, state.labels), out[half])
        return
    for column, aggregation in enumerate(plan.compiled):
        parts = tuple(windows.parts(measure, aggregation) for measure in aggregation.measures)
        if aggregation.operation.from_labels:
            parts += tuple((part,) for part in windows.labels(aggregation.range))
        out[:, column] = aggregation.operation.value(aggregation.declared, aggregation.scale, parts, events.times)


class _Windows:
    """The windows of one entity's features for a batch of n events; what is asked twice is computed once."""

    def __init__(self, plan: EntityPlan, events: EventColumns, state: EntityState) -> None:
        self._plan = plan
        self._events = events
        self._state = state
        self._edges: dict[tuple[int, int, int], Positions] = {}
        self._spans: dict[tuple[int, Range], Span] = {}
        self._parts: dict[tuple[Measure, Range], Parts] = {}
        self._labels: dict[Range, tuple[Int64Array, Int64Array]] = {}

    def expanded(self) -> int:
        """Records that must be looked at one by one."""
        largest = 0
        for one in self._plan.compiled:
            if any(measure.expands for measure in one.measures):
                largest = max(largest, int(self._span(self._state.events, one.range).sizes.sum()))
            if one.operation.from_labels and self._state.labels is not None:
                largest = max(largest, int(self._span(self._state.labels, one.range).sizes.sum()))
        return largest

    def parts(self, measure: Measure, aggregation: CompiledAggregation) -> Parts:
        """A measure over the windows of an aggregation, the event itself included where it is to be."""
        key = measure, aggregation.range
        if key not in self._parts:
            self._parts[key] = self._measured(measure, aggregation)
        return self._parts[key]

    def labels(self, window: Range) -> tuple[Int64Array, Int64Array]:
        """Number of known labels and of known positives, shapes (n,)."""
        log = self._state.labels
        assert log is not None
        if window not in self._labels:
            self._labels[window] = known_labels(log, self._span(log, window), self._events.times)
        return self._labels[window]

    def _measured(self, measure: Measure, aggregation: CompiledAggregation) -> Parts:
        log, window, events = self._state.events, aggregation.range, self._events
        number, at = self._plan.measures[measure], events.times - window.delay
        parts = measure.over(log, self._span(log, window), at, number)
        coarse = log.coarse if isinstance(measure, DenseMeasure) else log.cells.get(number)
        if coarse is not None:
            parts = measure.join(measure.over(coarse, self._span(coarse, window), at, number), parts)
        if aggregation.operation.itself and not window.delay:
            lanes = {lane.name: lane for lane in measure.lanes}
            parts = measure.join(parts, measure.own(lambda name: lanes[name].values(events), len(events)))
        return measure.merge(*parts) if isinstance(measure, SketchMeasure) else parts

    def _span(self, log: SortedLog, window: Range) -> Span:
        key = id(log), window
        if key not in self._spans:
            low = self._edge(log, window.delay + window.window, window.hop)
            high = self._edge(log, window.delay, window.hop if window.delay else 0)
            self._spans[key] = Span(low, np.maximum(high, low))
        return self._spans[key]

    def _edge(self, log: SortedLog, back: int, hop: int) -> Positions:
        """The position behind what lies `back` before the events or earlier; a hop of 0 is what lies before them."""
        key = id(log), back, hop
        if key not in self._edges:
            times = self._events.times
            self._edges[key] = log.after(self._state.slots, last_before(times, back, hop) if hop else times - 1)
        return self._edges[key]
