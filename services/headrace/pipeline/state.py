"""What is kept for each entity, compiled from the declaration: the layout of its two append logs.

An entity key has an event log and, when label-derived features need it, a label log. Both are fixed-width records in
arrival order. Numbers are integers, so that sums do not depend on the order or batching in which they were added.

The first record of a log that was ever rewritten is a header (time -1, the epoch in place of the id hash): it lies
outside every window, and it tells a rewritten log from one that merely has the same length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.pipeline.events import EventColumns, FloatArray, Int64Array, UInt64Array, hash_ids
from headrace.pipeline.features import Aggregation, OnDemand
from headrace.pipeline.schema import Field

if TYPE_CHECKING:
    from headrace.pipeline.definition import Pipeline

Records = npt.NDArray[Any]
HEADER_TIME = -1
LABEL_RECORD = np.dtype([("time", "<i8"), ("id", "<u8"), ("known", "<i8"), ("labelled", "<i4"), ("positive", "<i4")])
"""Event time, id hash, label time (all times in microseconds), and what the label adds: 1 and 0 or 1 for a first
label, 0 and the difference for a correction."""


@dataclass(frozen=True)
class Range:
    """A window behind a delay, with its hop; all in microseconds."""

    delay: int
    window: int
    hop: int

    def low(self, times: Int64Array) -> Int64Array:
        """For events at `times`, the latest time that is before the window, shape (n,)."""
        return ((times - self.delay - self.window) // self.hop + 1) * self.hop - 1

    def high(self, times: Int64Array) -> Int64Array:
        """For events at `times`, the latest time that is in the window (the event itself apart), shape (n,)."""
        if not self.delay:
            return times - 1
        return ((times - self.delay) // self.hop + 1) * self.hop - 1


@dataclass(frozen=True)
class EntityPlan:
    """The logs of one entity and the features that are made from them.

    Attributes:
        entity: name of the entity.
        field: event field that holds its id.
        aggregations: its features, in order.
        columns: their positions in the vector.
        lanes: fields that are summed.
        lateness: of the pipeline, in microseconds.
    """

    entity: str
    field: str
    aggregations: tuple[Aggregation, ...]
    columns: slice
    lanes: tuple[Field, ...]
    lateness: int

    @cached_property
    def event_record(self) -> np.dtype[Any]:
        """Layout of the event log: event time, id hash, then one integer lane per summed field."""
        return np.dtype([("time", "<i8"), ("id", "<u8"), *((lane.name, _lane_type(lane)) for lane in self.lanes)])

    @cached_property
    def has_labels(self) -> bool:
        """Whether there is a label log."""
        return any(aggregation.from_labels for aggregation in self.aggregations)

    @cached_property
    def keeps_negatives(self) -> bool:
        """Whether labels that add no positive are needed."""
        return any(aggregation.over == "labelled" for aggregation in self.aggregations if aggregation.from_labels)

    @cached_property
    def retention(self) -> int:
        """How far behind the watermark a record may still be needed, in microseconds."""
        longest = max(a.delay + a.window + a.hop for a in self.aggregations)
        return longest + self.lateness

    def range_of(self, aggregation: Aggregation) -> Range:
        """The window of a feature."""
        return Range(aggregation.delay, aggregation.window, aggregation.hop)

    def event_records(self, events: EventColumns, hashes: UInt64Array) -> Records:
        """What n events add to their event logs, shape (n,).

        Args:
            events: the events.
            hashes: `hash_ids` of their ids, shape (n,).
        """
        records = np.zeros(len(events), self.event_record)
        records["time"] = events.times
        records["id"] = hashes
        for lane in self.lanes:
            records[lane.name] = lane_values(lane, events.numbers[lane.name])
        return records

    def header(self, record: np.dtype[Any], epoch: int) -> bytes:
        """The first record of a rewritten log."""
        header = np.zeros(1, record)
        header["time"], header["id"] = HEADER_TIME, epoch
        return header.tobytes()


@dataclass(frozen=True)
class FeaturePlan:
    """A pipeline compiled for evaluation.

    Attributes:
        pipeline: the declaration.
        entities: one plan per feature view.
        on_demand: position in the vector and declaration of each on-demand feature.
    """

    pipeline: Pipeline
    entities: tuple[EntityPlan, ...]
    on_demand: tuple[tuple[int, OnDemand], ...]

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.pipeline.feature_names)

    def on_demand_values(self, events: EventColumns, out: FloatArray) -> None:
        """Fill the on-demand columns of `out`, shape (n, width)."""
        for column, feature in self.on_demand:
            out[:, column] = feature.compute(events)

    def defaults(self, events: EventColumns) -> FloatArray:
        """Vectors when no state can be read: aggregates are their defaults, shape (n, width)."""
        out = np.zeros((len(events), self.width))
        for plan in self.entities:
            out[:, plan.columns] = [aggregation.default for aggregation in plan.aggregations]
        self.on_demand_values(events, out)
        return out


def compile_plan(pipeline: Pipeline) -> FeaturePlan:
    """The plan of a pipeline: layouts of its logs and the places of its features."""
    fields = {entity.name: entity.field for entity in pipeline.entities}
    entities: list[EntityPlan] = []
    on_demand: list[tuple[int, OnDemand]] = []
    column = 0
    for part in pipeline.features:
        if isinstance(part, OnDemand):
            on_demand.append((column, part))
            column += 1
            continue
        width = len(part.aggregations)
        summed = dict.fromkeys(a.of for a in part.aggregations if a.of)
        entities.append(
            EntityPlan(
                part.entity,
                fields[part.entity],
                part.aggregations,
                slice(column, column + width),
                tuple(pipeline.event.by_name[name] for name in summed),
                pipeline.lateness,
            )
        )
        column += width
    return FeaturePlan(pipeline, tuple(entities), tuple(on_demand))


def lane_values(lane: Field, values: FloatArray) -> Int64Array:
    """The integers that are summed for a field: minor units, or the value times its scale, rounded; shape (n,)."""
    scaled = values * lane.scale if lane.kind == "number" else values
    return np.rint(scaled).astype(np.int64)


def label_records(
    ids: Sequence[str], times: Int64Array, known: Int64Array, values: FloatArray, previous: FloatArray
) -> Records:
    """What n outcomes add to their label logs, shape (n,).

    Args:
        ids: event ids, n.
        times: event times in microseconds, shape (n,).
        known: label times in microseconds, shape (n,).
        values: labels, 0 or 1, shape (n,).
        previous: the label that is replaced, NaN where it is the first, shape (n,).
    """
    records = np.zeros(len(ids), LABEL_RECORD)
    first = np.isnan(previous)
    records["time"], records["known"], records["id"] = times, known, hash_ids(ids)
    records["labelled"] = first
    records["positive"] = (values == 1).astype(np.int32) - np.where(first, 0, previous == 1)
    return records


def _lane_type(lane: Field) -> str:
    scale = lane.scale if lane.kind == "number" else 1
    fits = max(abs(lane.minimum), abs(lane.maximum)) * scale < 2**31
    return "<i4" if fits else "<i8"
