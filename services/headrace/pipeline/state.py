"""What is kept for each entity, compiled from the declaration: the layout of its two logs, and what is made of them.

An entity key has an event log and, when label-derived features need it, a label log. Both hold fixed-width records in
arrival order; `coarse_sections` says what may come before them. Numbers are integers, so that sums do not depend on the
order or batching in which they were added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.pipeline.aggregations.lanes import Filter, Lane, flag_lane
from headrace.pipeline.aggregations.measures import DenseMeasure, Measure
from headrace.pipeline.aggregations.operations import OPERATIONS, Operation
from headrace.pipeline.aggregations.sketches import SketchMeasure
from headrace.pipeline.coarse_sections import HEADER_TIME, CoarseLayout, carried_bytes, header
from headrace.pipeline.coarsening import coarsen, coarsen_labels
from headrace.pipeline.encodings import Encoding
from headrace.pipeline.events import EventColumns, FloatArray, Int64Array, UInt64Array, hash_ids
from headrace.pipeline.features import Aggregation, Derived, FeatureView, OnDemand
from headrace.pipeline.schema import Field
from headrace.pipeline.time_units import SECOND

if TYPE_CHECKING:
    from headrace.pipeline.definition import Pipeline

__all__ = [
    "HEADER_TIME",
    "LABEL_RECORD",
    "EntityPlan",
    "FeaturePlan",
    "Range",
    "Records",
    "coarsen",
    "coarsen_labels",
    "compile_plan",
    "label_records",
]

Records = npt.NDArray[Any]
LABEL_RECORD = np.dtype([("time", "<i8"), ("id", "<u8"), ("known", "<i8"), ("labelled", "<i4"), ("positive", "<i4")])
"""Event time, id hash, label time (all times in microseconds), and what the label adds: 1 and 0 or 1 for a first
label, 0 and the difference for a correction."""


@dataclass(frozen=True)
class Range:
    """A window behind a delay, with its hop; all in microseconds."""

    delay: int
    window: int
    hop: int

    @property
    def low_edge(self) -> tuple[int, int]:
        """Its beginning: how far back from the event, and the hop that it moves by."""
        return self.delay + self.window, self.hop

    @property
    def high_edge(self) -> tuple[int, int]:
        """Its end, the event itself apart: without a delay the microsecond before the event."""
        return (self.delay, self.hop) if self.delay else (1, 1)

    def low(self, times: Int64Array) -> Int64Array:
        """For events at `times`, the latest time that is before the window, shape (n,)."""
        return _end_of_hop(times, *self.low_edge)

    def high(self, times: Int64Array) -> Int64Array:
        """For events at `times`, the latest time that is in the window (the event itself apart), shape (n,)."""
        return _end_of_hop(times, *self.high_edge)


def _end_of_hop(times: Int64Array, back: int, hop: int) -> Int64Array:
    """The end of the hop in which `back` before each time lies, in microseconds, shape (n,)."""
    return ((times - back) // hop + 1) * hop - 1


@dataclass(frozen=True)
class CompiledAggregation:
    """An aggregation with what it is made of.

    Attributes:
        declared: the declaration.
        operation: what it computes.
        field: the field that it is of, None for none.
        range: its window.
        flag: lane of its filter, None for none.
        measures: what it is made of.
    """

    declared: Aggregation
    operation: Operation
    field: Field | None
    range: Range
    flag: Lane | None
    measures: tuple[Measure, ...]

    @property
    def scale(self) -> int:
        """Integer units to one unit of the field."""
        return 1 if self.field is None else self.field.scale


@dataclass(frozen=True)
class FeatureGroup:
    """Features that differ in nothing but their windows; they are evaluated as one.

    Attributes:
        first: one of them.
        columns: their places among the features of the entity.
        windows: number of their list of windows; groups of the same number have the same windows.
        low: for each window the edge before it, an index into `EntityPlan.edges`.
        high: for each window the edge at its end.
        delays: of the windows, in microseconds, shape (windows, 1).
        itself: whether the event itself is covered.
        measures: what they are made of, with the numbers in the entity's plan.
    """

    first: CompiledAggregation
    columns: list[int]
    windows: int
    low: list[int]
    high: list[int]
    delays: Int64Array
    itself: bool
    measures: tuple[tuple[Measure, int], ...]

    @cached_property
    def expands(self) -> bool:
        """Whether every record of a window is looked at."""
        return any(measure.expands for measure, _ in self.measures)


@dataclass(frozen=True)
class EntityPlan:
    """The logs of one entity and the features that are made from them.

    Attributes:
        entity: name of the entity.
        field: event field that holds its id.
        aggregations: its features, in order.
        columns: their positions in the vector.
        fields: of the event, by name.
        lateness: of the pipeline, in microseconds.
    """

    entity: str
    field: str
    aggregations: tuple[Aggregation, ...]
    columns: slice
    fields: Mapping[str, Field]
    lateness: int

    @cached_property
    def compiled(self) -> tuple[CompiledAggregation, ...]:
        """Its features with what they are made of, in order."""
        filters: dict[Filter, Lane] = {}
        compiled = []
        for aggregation in self.aggregations:
            flag = None
            if aggregation.where is not None:
                flag = filters.setdefault(aggregation.where, flag_lane(len(filters), aggregation.where))
            operation, field = OPERATIONS[aggregation.operation], self.fields.get(aggregation.of)
            window = Range(aggregation.delay, aggregation.window, aggregation.hop)
            measures = operation.measures(aggregation, field, flag)
            compiled.append(CompiledAggregation(aggregation, operation, field, window, flag, measures))
        return tuple(compiled)

    @cached_property
    def edges(self) -> Mapping[tuple[int, int], int]:
        """The distinct edges of all windows, (how far back, hop) in microseconds, and their numbers."""
        edges = dict.fromkeys(edge for one in self.compiled for edge in (one.range.low_edge, one.range.high_edge))
        return {edge: number for number, edge in enumerate(edges)}

    def edge_times(self, times: Int64Array) -> Int64Array:
        """For events at `times` the latest time that lies before each edge, shape (edges, n)."""
        back, hop = self._edge_columns
        return ((times - back) // hop + 1) * hop - 1

    @cached_property
    def _edge_columns(self) -> tuple[Int64Array, Int64Array]:
        back, hop = np.array(list(self.edges), np.int64).T[:, :, None]
        return back, hop

    @cached_property
    def groups(self) -> tuple[FeatureGroup, ...]:
        """The features, grouped for evaluation."""
        found: dict[tuple[Any, ...], list[int]] = {}
        for column, one in enumerate(self.compiled):
            d = one.declared
            itself = one.operation.itself and not d.delay
            key = (d.operation, d.of, one.flag, d.over, d.default, d.half_life, d.share, itself)
            found.setdefault(key, []).append(column)
        windows: dict[tuple[Any, ...], int] = {}
        groups = []
        for (*_, itself), columns in found.items():
            ranges = [self.compiled[column].range for column in columns]
            number = windows.setdefault((*ranges, itself), len(windows))
            groups.append(
                FeatureGroup(
                    self.compiled[columns[0]],
                    columns,
                    number,
                    [self.edges[window.low_edge] for window in ranges],
                    [self.edges[window.high_edge] for window in ranges],
                    np.array([[window.delay] for window in ranges], np.int64),
                    itself,
                    tuple((measure, self.measures[measure]) for measure in self.compiled[columns[0]].measures),
                )
            )
        return tuple(groups)

    @cached_property
    def measures(self) -> Mapping[Measure, int]:
        """Everything that is measured of its windows, each once, and its number."""
        measures = dict.fromkeys(measure for one in self.compiled for measure in one.measures)
        return {measure: number for number, measure in enumerate(measures)}

    @cached_property
    def lanes(self) -> tuple[Lane, ...]:
        """What is kept of an event beside its time and id."""
        return tuple({lane.name: lane for measure in self.measures for lane in measure.lanes}.values())

    @cached_property
    def event_record(self) -> np.dtype[Any]:
        """Layout of the event log's records: event time, id hash, then one integer per lane."""
        return np.dtype([("time", "<i8"), ("id", "<u8"), *((lane.name, lane.dtype) for lane in self.lanes)])

    @cached_property
    def has_labels(self) -> bool:
        """Whether there is a label log."""
        return any(aggregation.from_labels for aggregation in self.aggregations)

    @cached_property
    def keeps_negatives(self) -> bool:
        """Whether labels that add no positive are needed."""
        return any(aggregation.over == "labelled" for aggregation in self.aggregations if aggregation.from_labels)

    @cached_property
    def bucket(self) -> int:
        """What window edges are multiples of, and coarse records cover, in microseconds; 0 for none: 1 s or less."""
        shared = gcd(*(aggregation.hop for aggregation in self.aggregations))
        return shared if shared > SECOND else 0

    @cached_property
    def coarse(self) -> CoarseLayout | None:
        """Layout of the event log's coarse section, None when it never has one."""
        if not self.bucket:
            return None
        dense = [(m, number) for m, number in self.measures.items() if isinstance(m, DenseMeasure)]
        sketches = [(m, number) for m, number in self.measures.items() if isinstance(m, SketchMeasure)]
        return CoarseLayout(
            self.bucket,
            tuple(column for measure, number in dense for column in measure.columns(number)),
            tuple((number, np.dtype(list(measure.cell_columns))) for measure, number in sketches),
        )

    @cached_property
    def coarse_bound(self) -> int:
        """The most bytes that a key's coarse section takes; 0 when it never has one.

        Beside it a key keeps one record for each event of the last `lateness` microseconds; an entity without a coarse
        section keeps one for each event of the last `retention` microseconds.
        """
        if self.coarse is None:
            return 0
        sizes = dict(self.coarse.sketches)
        cells = sum(
            measure.most_cells * sizes[number].itemsize
            for measure, number in self.measures.items()
            if isinstance(measure, SketchMeasure)
        )
        per_bucket = self.coarse.record.itemsize + cells
        buckets = -(-(self.retention - self.lateness) // self.bucket) + 1
        return -(-buckets * per_bucket // carried_bytes(self.event_record)) * self.event_record.itemsize

    @cached_property
    def retention(self) -> int:
        """How far behind the watermark a record may still be needed, in microseconds."""
        longest = max(a.delay + a.window + a.hop for a in self.aggregations)
        return longest + self.lateness

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
            records[lane.name] = lane.values(events)
        return records

    @staticmethod
    def header(record: np.dtype[Any], epoch: int) -> bytes:
        """The first record of a rewritten log without a coarse section."""
        return header(record, epoch)


@dataclass(frozen=True)
class FeaturePlan:
    """A pipeline compiled for evaluation.

    Attributes:
        pipeline: the declaration.
        entities: one plan per feature view.
        on_demand: features of the event alone with the position in the vector where they begin.
        derived: features of other features, with their position.
    """

    pipeline: Pipeline
    entities: tuple[EntityPlan, ...]
    on_demand: tuple[tuple[int, OnDemand | Encoding], ...]
    derived: tuple[tuple[int, Derived], ...] = ()

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.pipeline.feature_names)

    def on_demand_values(self, events: EventColumns, out: FloatArray) -> None:
        """Fill the columns of `out` that need the event alone, shape (n, width)."""
        for column, feature in self.on_demand:
            if isinstance(feature, Encoding):
                out[:, column : column + len(feature.names)] = feature.values(events)
            else:
                out[:, column] = feature.compute(events)

    def derived_values(self, out: FloatArray) -> None:
        """Fill the columns of `out` that are made from its others, shape (n, width)."""
        if not self.derived:
            return
        later = {column for column, _ in self.derived}
        names = self.pipeline.feature_names
        known = {name: out[:, column] for column, name in enumerate(names) if column not in later}
        for column, feature in self.derived:
            out[:, column] = feature.compute(known)
            known[feature.name] = out[:, column]

    def defaults(self, events: EventColumns) -> FloatArray:
        """Vectors when no state can be read: aggregates are their defaults, shape (n, width)."""
        out = np.zeros((len(events), self.width))
        for plan in self.entities:
            out[:, plan.columns] = [aggregation.default for aggregation in plan.aggregations]
        self.on_demand_values(events, out)
        self.derived_values(out)
        return out


def compile_plan(pipeline: Pipeline) -> FeaturePlan:
    """The plan of a pipeline: layouts of its logs and the places of its features."""
    ids = {entity.name: entity.field for entity in pipeline.entities}
    entities: list[EntityPlan] = []
    on_demand: list[tuple[int, OnDemand | Encoding]] = []
    derived: list[tuple[int, Derived]] = []
    column = 0
    for part in pipeline.features:
        if isinstance(part, FeatureView):
            columns = slice(column, column + len(part.names))
            fields = {
                aggregation.of: pipeline.event.by_name[aggregation.of]
                for aggregation in part.aggregations
                if aggregation.of
            }
            entities.append(
                EntityPlan(part.entity, ids[part.entity], part.aggregations, columns, fields, pipeline.lateness)
            )
        elif isinstance(part, Derived):
            derived.append((column, part))
        else:
            on_demand.append((column, part))
        column += len(part.names)
    return FeaturePlan(pipeline, tuple(entities), tuple(on_demand), tuple(derived))


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
