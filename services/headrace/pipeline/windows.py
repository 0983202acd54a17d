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
from headrace.pipeline.one_event import evaluate_one, is_short
from headrace.pipeline.sorted_logs import Positions, SortedLog, Span
from headrace.pipeline.state import EntityPlan, FeatureGroup, FeaturePlan

__all__ = ["EntityState", "SortedLog", "evaluate", "feature_vectors"]

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
        evaluate(entity, events, state, out[:, entity.columns])
    plan.derived_values(out)
    return out


def evaluate(plan: EntityPlan, events: EventColumns, state: EntityState, out: FloatArray) -> None:
    """Fill the columns of one entity.

    Args:
        plan: the entity.
        events: n events.
        state: what is known of their keys.
        out: the entity's columns of the vectors, shape (n, aggregations).
    """
    groups: Sequence[FeatureGroup] = plan.groups
    if len(events) == 1 and is_short(state.events) and is_short(state.labels):
        groups = evaluate_one(plan, events, state.events, state.labels, out)
        if not groups:
            return
    windows = _Windows(plan, events, state)
    if len(events) > 1 and windows.expanded() > MOST_EXPANDED:
        middle = len(events) // 2
        for half in (slice(0, middle), slice(middle, len(events))):
            rows = np.arange(len(events))[half]
            part = EntityState(state.slots[half], state.events, state.labels)
            evaluate(plan, events.take(rows), part, out[half])
        return
    for group in groups:
        first = group.first
        parts = tuple([windows.parts(measure, number, group) for measure, number in group.measures])
        if first.operation.from_labels:
            parts += windows.labels(group)
        values = first.operation.value(first.declared, first.scale, parts, windows.times(group))
        out[:, group.columns] = values.reshape(len(group.columns), -1).T


class _Windows:
    """The windows of one entity's features for a batch of n events; what is asked twice is computed once.

    The windows of a group are asked as if there were so many events: first all with the first window, then all with the
    second.
    """

    def __init__(self, plan: EntityPlan, events: EventColumns, state: EntityState) -> None:
        self._plan = plan
        self._events = events
        self._state = state
        self._edge_times = plan.edge_times(events.times)
        self._times: dict[int, Int64Array] = {1: events.times}
        self._edges: dict[int, Positions] = {}
        self._spans: dict[tuple[int, int], Span] = {}
        self._parts: dict[tuple[int, int], Parts] = {}
        self._labels: dict[int, tuple[Parts, Parts]] = {}

    def expanded(self) -> int:
        """Records that must be looked at one by one."""
        largest = 0
        for group in self._plan.groups:
            if group.expands:
                largest = max(largest, int(self._span(self._state.events, group).sizes.sum()))
            if group.first.operation.from_labels and self._state.labels is not None and len(self._state.labels) > 1:
                largest = max(largest, int(self._span(self._state.labels, group).sizes.sum()))
        return largest

    def times(self, group: FeatureGroup) -> Int64Array:
        """Event times, once for each window, shape (windows n,)."""
        count = len(group.columns)
        if count not in self._times:
            self._times[count] = np.concatenate((self._events.times,) * count)
        return self._times[count]

    def parts(self, measure: Measure, number: int, group: FeatureGroup) -> Parts:
        """A measure over the windows of a group, the event itself included where it is to be."""
        key = number, group.windows
        if key not in self._parts:
            self._parts[key] = self._measured(measure, number, group)
        return self._parts[key]

    def labels(self, group: FeatureGroup) -> tuple[Parts, Parts]:
        """Number of known labels and of known positives, shapes (windows n,)."""
        log = self._state.labels
        assert log is not None
        if group.windows not in self._labels:
            labelled, positive = known_labels(log, self._span(log, group), self.times(group))
            self._labels[group.windows] = (labelled,), (positive,)
        return self._labels[group.windows]

    def _measured(self, measure: Measure, number: int, group: FeatureGroup) -> Parts:
        log, events = self._state.events, self._events
        at = (events.times - group.delays).ravel() if measure.expands else events.times
        parts = measure.over(log, self._span(log, group), at, number)
        coarse = log.coarse if isinstance(measure, DenseMeasure) else log.cells.get(number)
        if coarse is not None:
            parts = measure.join(measure.over(coarse, self._span(coarse, group), at, number), parts)
        if group.itself:
            lanes = {lane.name: lane for lane in measure.lanes}
            own = measure.own(lambda name: lanes[name].values(events), len(events))
            parts = measure.join(parts, measure.repeated(own, len(events), len(group.columns)))
        return measure.merge(*parts) if isinstance(measure, SketchMeasure) else parts

    def _span(self, log: SortedLog, group: FeatureGroup) -> Span:
        key = id(log), group.windows
        if key not in self._spans:
            if key[0] not in self._edges:
                self._edges[key[0]] = log.after(self._state.slots, self._edge_times)
            edges = self._edges[key[0]]
            low = edges[group.low].ravel()
            self._spans[key] = Span(low, np.maximum(edges[group.high].ravel(), low))
        return self._spans[key]
