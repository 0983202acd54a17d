"""What the machine code has to know of entities, as tables of numbers, and how what it leaves open is finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headrace.pipeline.aggregations.lanes import Lane
from headrace.pipeline.aggregations.measures import Count, Extreme, Latest, Measure, Sum, SumOfSquares
from headrace.pipeline.aggregations.sketches import bin_values, bins, estimates
from headrace.pipeline.events import EventColumns, FloatArray, Int64Array

if TYPE_CHECKING:
    from headrace.pipeline.state import EntityPlan, FeatureGroup

# Columns of the table of entities: where its rows of the other tables begin, and behind it where they end.
EDGES, LANES, MEASURES, FEATURES = 0, 2, 4, 6
RECORD_BYTES, HAS_LABELS, HAS_COARSE, ROWS, LOOKS_AT_ALL = 8, 9, 10, 11, 12

# Columns of the table of edges.
BACK, HOP = range(2)

# Columns of the table of lanes, and the types of a lane.
OFFSET, TYPE, SCALE, OPTIONAL, ABSENT = range(5)
BYTE, INT32, INT64, UINT32 = range(4)

# Columns of the table of measures, and their kinds. A lane of -1 is none; a row is the first of what is kept of it.
KIND, VALUE, FLAG, ROW = range(4)
COUNT, SUM, SQUARES, SMALLEST, LARGEST, LATEST, SELECTED = range(7)

# Columns of the table of features, and what they are. Of those that are finished by numpy (RAW_PARTS, RANK_COUNTS,
# RANKED_VALUE) the column is the first row of the parts.
OPERATION, COLUMN, LOW, HIGH, ITSELF, FIRST, SECOND, THIRD, DIVISOR, OVER_LABELLED, DELAY = range(11)
COUNTED, SUMMED, AVERAGE, EXTREME, LAST, SINCE_LAST, LABEL_COUNT, LABEL_RATE, RAW_PARTS = range(9)
RANK_COUNTS, RANKED_VALUE, WEIGHTS, WEIGHTED_MEAN = range(9, 13)

# Columns of the features' table of floats.
DEFAULT, SHARE, HALF_LIFE = range(3)

RANKS = 64
"""Parts of a distinct count: number of registers of each rank."""

_OPERATIONS = {
    "count": COUNTED,
    "sum": SUMMED,
    "mean": AVERAGE,
    "min": EXTREME,
    "max": EXTREME,
    "std": RAW_PARTS,  # its quotient needs more than 64 bits
    "last": LAST,
    "time_since_last": SINCE_LAST,
    "label_count": LABEL_COUNT,
    "label_rate": LABEL_RATE,
    "label_mean": LABEL_RATE,
    "distinct": RANK_COUNTS,
    "quantile": RANKED_VALUE,
    "decayed_count": WEIGHTS,
    "decayed_mean": WEIGHTED_MEAN,
}
_ROWS = {SQUARES: 3, LATEST: 3, SELECTED: 0}
_TYPES = {"u1": BYTE, "<i4": INT32, "<i8": INT64, "<u4": UINT32}


@dataclass(frozen=True)
class Unfinished:
    """A feature whose parts alone are computed.

    Attributes:
        group: that it is of.
        column: its place in the vector.
        parts: for each measure its rows among the parts.
    """

    group: FeatureGroup
    column: int
    parts: tuple[slice, ...]


class Tables:
    """The tables of one or several entities.

    Attributes:
        arrays: layout and rows of each entity, edges of the windows, lanes of the records, measures of the windows,
            features, and the features' floats.
        unfinished: for each entity the features whose parts alone are computed.
        parts: number of rows of these parts.
    """

    def __init__(self, plans: Sequence[EntityPlan]) -> None:
        """Args:
        plans: the entities.
        """
        self._sources: list[Lane] = []
        self.parts = 0
        self.unfinished: list[list[Unfinished]] = []
        entities: list[list[int]] = []
        edges: list[list[int]] = []
        measures: list[list[int]] = []
        features: list[list[int]] = []
        lanes: list[list[int]] = []
        floats: list[list[float]] = []
        for plan in plans:
            began = [len(table) for table in (edges, lanes, measures, features)]
            edges += [list(edge) for edge in plan.edges]
            self.unfinished.append([])
            places = plan.measures
            sources = list(dict.fromkeys(lane for measure in places for lane in measure.selection.lanes))
            self._sources += sources
            lanes += [_lane(plan, lane) for lane in sources]
            row = 0
            for measure in places:
                measures.append(_measure(measure, sources, row))
                row += _ROWS.get(measures[-1][KIND], 1)
            for group in plan.groups:
                declared = group.first.declared
                for at, column in enumerate(group.columns):
                    features.append(self._feature(plan, group, at, column))
                    floats.append([declared.default, declared.share, declared.half_life])
            looks_at_all = any(measure[KIND] == SELECTED for measure in measures[began[2] :])
            ended = [len(table) for table in (edges, lanes, measures, features)]
            rows = [number for pair in zip(began, ended, strict=True) for number in pair]
            layout = [plan.event_record.itemsize, plan.has_labels, plan.coarse is not None, row, looks_at_all]
            entities.append([*rows, *layout])
        self.arrays = (
            _table(entities, LOOKS_AT_ALL + 1),
            _table(edges, HOP + 1),
            _table(lanes, ABSENT + 1),
            _table(measures, ROW + 1),
            _table(features, DELAY + 1),
            np.array(floats, np.float64).reshape(len(floats), HALF_LIFE + 1),
        )

    def given(self, events: EventColumns) -> FloatArray:
        """For each lane for each of n events the field, or what the filter says, shape (lanes, n)."""
        found = [
            lane.values(events) if lane.kind != "value" or lane.field is None else events.numbers[lane.field.name]
            for lane in self._sources
        ]
        if len(found) == 1 and found[0].dtype == np.float64:
            return np.ascontiguousarray(found[0]).reshape(1, len(events))
        return np.array(found, np.float64).reshape(len(found), len(events))

    def finish(self, entity: int, parts: Int64Array, times: Int64Array, out: FloatArray) -> None:
        """Fill the columns of an entity's features whose parts alone were computed.

        Args:
            entity: its number.
            parts: shape (n, parts).
            times: event times in microseconds, shape (n,).
            out: the vectors, shape (n, width).
        """
        for one in self.unfinished[entity]:
            declared, scale = one.group.first.declared, one.group.first.scale
            if declared.operation == "distinct":
                values = estimates(parts[:, one.parts[0]])
            elif declared.operation == "quantile":
                count, value = parts[:, one.parts[0]].T
                values = np.where(count > 0, bin_values(bins(value)) / scale, declared.default)
            else:
                found = tuple(tuple(parts[:, rows].T) for rows in one.parts)
                values = one.group.first.operation.value(declared, scale, found, times)
            out[:, one.column] = values

    def _feature(self, plan: EntityPlan, group: FeatureGroup, at: int, column: int) -> list[int]:
        first = group.first
        operation = _OPERATIONS[first.operation.name]
        used = [number for _, number in group.measures]
        place = plan.columns.start + column
        if operation in (RAW_PARTS, RANK_COUNTS, RANKED_VALUE):
            begin, slices = self.parts, []
            for measure, _ in group.measures:
                rows = {RANK_COUNTS: RANKS, RANKED_VALUE: 2}.get(operation, _ROWS.get(_kind(measure), 1))
                slices.append(slice(self.parts, self.parts + rows))
                self.parts += rows
            self.unfinished[-1].append(Unfinished(group, place, tuple(slices)))
            place = begin
        return [
            operation,
            place,
            group.low[at],
            group.high[at],
            group.itself,
            *(used + [-1, -1])[:3],
            first.scale,
            first.declared.over == "labelled",
            int(group.delays[at, 0]),
        ]


def _lane(plan: EntityPlan, lane: Lane) -> list[int]:
    fields = plan.event_record.fields
    assert fields is not None
    scale = lane.field.scale if lane.field is not None and lane.field.kind == "number" else 1
    return [fields[lane.name][1], _TYPES[lane.dtype], scale, lane.absent is not None, lane.absent or 0]


def _measure(measure: Measure, lanes: list[Lane], row: int) -> list[int]:
    selection = measure.selection
    value, flag = (-1 if lane is None else lanes.index(lane) for lane in (selection.value, selection.flag))
    if isinstance(measure, Count) and selection.value is not None and selection.value.absent is None:
        value = -1
    return [_kind(measure), value, flag, row]


def _kind(measure: Measure) -> int:
    match measure:
        case Count():
            return COUNT
        case Sum():
            return SUM
        case SumOfSquares():
            return SQUARES
        case Latest():
            return LATEST
        case Extreme():
            return SMALLEST if measure.sign > 0 else LARGEST
    return SELECTED


def _table(rows: list[list[int]], columns: int) -> Int64Array:
    return np.array(rows, np.int64).reshape(len(rows), columns)
