"""What the machine code has to know of entities, as tables of integers, and which features it leaves to numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headrace.pipeline.aggregations.lanes import Lane
from headrace.pipeline.aggregations.measures import Count, Extreme, Latest, Measure, Sum, SumOfSquares
from headrace.pipeline.events import EventColumns, FloatArray, Int64Array

if TYPE_CHECKING:
    from headrace.pipeline.state import EntityPlan, FeatureGroup

# Columns of the table of entities: where its rows of the other tables begin, and behind it where they end.
EDGES, LANES, MEASURES, FEATURES = 0, 2, 4, 6
RECORD_BYTES, HAS_LABELS, HAS_COARSE = 8, 9, 10

# Columns of the table of edges.
BACK, HOP = range(2)

# Columns of the table of lanes, and the types of a lane.
OFFSET, TYPE, SCALE, OPTIONAL, ABSENT = range(5)
BYTE, INT32, INT64 = range(3)

# Columns of the table of measures, and their kinds. A lane of -1 is none; a row is the first of what is kept of it.
KIND, VALUE, FLAG, ROW = range(4)
COUNT, SUM, SQUARES, SMALLEST, LARGEST, LATEST = range(6)

# Columns of the table of features, and what they are. Of RAW_PARTS the column is the first row of the parts.
OPERATION, COLUMN, LOW, HIGH, ITSELF, FIRST, SECOND, THIRD, DIVISOR, OVER_LABELLED = range(10)
COUNTED, SUMMED, AVERAGE, EXTREME, LAST, SINCE_LAST, LABEL_COUNT, LABEL_RATE, RAW_PARTS = range(9)

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
}
_PARTS = {SQUARES: 3, LATEST: 3}
_TYPES = {"u1": BYTE, "<i4": INT32, "<i8": INT64}


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
            features, and the defaults of these.
        left: for each entity the groups of features that are left to numpy.
        unfinished: for each entity the features whose parts alone are computed.
        parts: number of rows of these parts.
    """

    def __init__(self, plans: Sequence[EntityPlan]) -> None:
        """Args:
        plans: the entities.
        """
        self._sources: list[Lane] = []
        self.parts = 0
        self.left = tuple(tuple(g for g in plan.groups if g.first.operation.name not in _OPERATIONS) for plan in plans)
        self.unfinished: list[list[Unfinished]] = []
        entities: list[list[int]] = []
        edges: list[list[int]] = []
        measures: list[list[int]] = []
        features: list[list[int]] = []
        lanes: list[list[int]] = []
        defaults: list[float] = []
        for plan in plans:
            began = [len(table) for table in (edges, lanes, measures, features)]
            edges += [list(edge) for edge in plan.edges]
            groups = [group for group in plan.groups if group.first.operation.name in _OPERATIONS]
            self.unfinished.append([])
            places = _places(groups)
            sources = list(dict.fromkeys(lane for measure in places for lane in measure.selection.lanes))
            self._sources += sources
            lanes += [_lane(plan, lane) for lane in sources]
            row = 0
            for measure in places:
                measures.append(_measure(measure, sources, row))
                row += _PARTS.get(measures[-1][KIND], 1)
            for group in groups:
                for at, column in enumerate(group.columns):
                    features.append(self._feature(plan, group, at, column, places))
                    defaults.append(group.first.declared.default)
            ended = [len(table) for table in (edges, lanes, measures, features)]
            rows = [number for pair in zip(began, ended, strict=True) for number in pair]
            entities.append([*rows, plan.event_record.itemsize, plan.has_labels, plan.coarse is not None])
        self.arrays = (
            _table(entities, HAS_COARSE + 1),
            _table(edges, HOP + 1),
            _table(lanes, ABSENT + 1),
            _table(measures, ROW + 1),
            _table(features, OVER_LABELLED + 1),
            np.array(defaults, np.float64),
        )

    def given(self, events: EventColumns) -> FloatArray:
        """For each lane for each of n events the field, or what the filter says, shape (lanes, n)."""
        found = [
            lane.values(events) if lane.field is None else events.numbers[lane.field.name] for lane in self._sources
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
            first = one.group.first
            found = tuple(tuple(parts[:, rows].T) for rows in one.parts)
            out[:, one.column] = first.operation.value(first.declared, first.scale, found, times)

    def _feature(
        self, plan: EntityPlan, group: FeatureGroup, at: int, column: int, places: dict[Measure, int]
    ) -> list[int]:
        first = group.first
        operation = _OPERATIONS[first.operation.name]
        used = [places[measure] for measure, _ in group.measures]
        place = plan.columns.start + column
        if operation == RAW_PARTS:
            slices = []
            begin = self.parts
            for measure, _ in group.measures:
                slices.append(slice(self.parts, self.parts + _PARTS.get(_kind(measure), 1)))
                self.parts = slices[-1].stop
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
        ]


def _places(groups: Sequence[FeatureGroup]) -> dict[Measure, int]:
    """The measures of the groups, each once, and its number."""
    found = dict.fromkeys(measure for group in groups for measure, _ in group.measures)
    return {measure: number for number, measure in enumerate(found)}


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
    raise TypeError(f"{type(measure).__name__} is left to numpy")


def _table(rows: list[list[int]], columns: int) -> Int64Array:
    return np.array(rows, np.int64).reshape(len(rows), columns)
