"""The table of aggregations. To add one: write its class here, its definition in `definitions`, and list it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from headrace.pipeline.aggregations import definitions
from headrace.pipeline.aggregations.definitions import Asked, CoveredEvent
from headrace.pipeline.aggregations.lanes import Lane, cell_lane, largest_integer, value_lane
from headrace.pipeline.aggregations.measures import (
    HALF_BITS,
    Count,
    Decayed,
    Extreme,
    Latest,
    Measure,
    Parts,
    Selection,
    Sum,
    SumOfSquares,
)
from headrace.pipeline.aggregations.sketches import Bins, Registers, distinct_counts, quantiles
from headrace.pipeline.events import FloatArray, Int64Array
from headrace.pipeline.schema import EXACT_INTEGER, Field

if TYPE_CHECKING:
    from headrace.pipeline.features import Aggregation

MAX_HALF_LIVES = 500
SQUARED_LIMIT = 2 ** (2 * HALF_BITS)


class Operation(ABC):
    """What an aggregation computes.

    Attributes:
        name: as `Aggregation.operation` has it.
        takes: the fields that it is of: none, numeric ones, or text and whole numbers.
        from_labels: whether it needs the entity's label log.
        itself: whether a window without delay covers the event itself.
        tolerance: how far two evaluations of the same events may differ, as a share of the value.
    """

    name: ClassVar[str]
    takes: ClassVar[Literal["nothing", "number", "value"]] = "nothing"
    from_labels: ClassVar[bool] = False
    itself: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.0

    @staticmethod
    def definition(events: Sequence[CoveredEvent], asked: Asked) -> float:
        """The feature of one window in plain Python. What is made of labels is defined over the label log instead."""
        raise NotImplementedError

    def problem(self, aggregation: Aggregation, field: Field | None) -> str:
        """What is wrong with a declaration and what is allowed, empty when nothing is."""
        if self.takes == "number" and field is not None and largest_integer(field) > EXACT_INTEGER:
            return (
                f"{aggregation.of!r} may be as large as {largest_integer(field):g} in units of its scale; what is "
                "summed must stay within 2^53, so declare closer bounds"
            )
        return ""

    @abstractmethod
    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        """The measures that it is made of."""

    @abstractmethod
    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        """The feature from its measures, one after the other, over n windows, shape (n,).

        Args:
            aggregation: the declaration.
            scale: integer units to one unit of the field.
            parts: of each measure; those of sketches are merged.
            times: event times in microseconds, shape (n,).
        """


class CountEvents(Operation):
    """Number of events."""

    name = "count"
    definition = staticmethod(definitions.count)

    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        return (Count(Selection(flag=flag)),)

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        return parts[0][0].astype(np.float64)


class Total(Operation):
    """Sum of a field."""

    name = "sum"
    takes = "number"
    definition = staticmethod(definitions.total)

    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        return (Sum(_valued(field, flag)),)

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        return parts[0][0] / scale


class Mean(Operation):
    """Mean of a field."""

    name = "mean"
    takes = "number"
    definition = staticmethod(definitions.mean)

    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        return Sum(_valued(field, flag)), Count(_present(field, flag))

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        (summed,), (counts,) = parts
        return np.where(counts > 0, summed / (np.maximum(counts, 1) * scale), aggregation.default)


class Minimum(Operation):
    """Smallest value of a field."""

    name = "min"
    takes = "number"
    definition = staticmethod(definitions.minimum)
    sign: ClassVar[int] = 1

    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        return (Extreme(_valued(field, flag), self.sign),)

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        found = parts[0][0]
        return np.where(found != Extreme.empty[0], found * self.sign / scale, aggregation.default)


class Maximum(Minimum):
    """Largest value of a field."""

    name = "max"
    definition = staticmethod(definitions.maximum)
    sign = -1


class StandardDeviation(Operation):
    """Standard deviation of a field, of the population."""

    name = "std"
    takes = "number"
    definition = staticmethod(definitions.std)

    def problem(self, aggregation: Aggregation, field: Field | None) -> str:
        assert field is not None
        if largest_integer(field) > SQUARED_LIMIT:
            return (
                f"{aggregation.of!r} may be as large as {largest_integer(field):g} in units of its scale; what is "
                "squared must stay within 2^40, so declare closer bounds"
            )
        return ""

    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        selection = _valued(field, flag)
        return Count(_present(field, flag)), Sum(selection), SumOfSquares(selection)

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        # Python's integers: n sum(x²) - sum(x)² has more than 64 bits, and its quotient is rounded once.
        n, summed, *squares = (part.astype(object) for of_measure in parts for part in of_measure)
        high, cross, low = squares
        squared = (high << 2 * HALF_BITS) + (cross << (HALF_BITS + 1)) + low
        there = parts[0][0] > 0
        n = np.where(there, n, 1)
        variance = np.where(there, (n * squared - summed * summed) / (n * n), 0.0).astype(np.float64)
        return np.where(there, np.sqrt(variance) / scale, aggregation.default)


class Last(Operation):
    """Value of the last event before this one."""

    name = "last"
    takes = "number"
    itself = False
    definition = staticmethod(definitions.last)

    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        return (Latest(_valued(field, flag)),)

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        time, _, value = parts[0]
        return np.where(time != Latest.empty[0], value / scale, aggregation.default)


class TimeSinceLast(Operation):
    """Seconds since the last event before this one."""

    name = "time_since_last"
    itself = False
    definition = staticmethod(definitions.time_since_last)

    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        return (Latest(Selection(flag=flag)),)

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        time = parts[0][0]
        return np.where(time != Latest.empty[0], (times - time) / 1e6, aggregation.default)


class Distinct(Operation):
    """Estimated number of distinct values of a field."""

    name = "distinct"
    takes = "value"
    # The estimator's sums are taken in another order than its definition's.
    tolerance = 1e-12
    definition = staticmethod(definitions.distinct)

    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        assert field is not None
        return (Registers(Selection(cell_lane(field), flag)),)

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        queries, cells, _ = parts[0]
        return distinct_counts(queries, cells, len(times))


class Quantile(Operation):
    """Value of a field at a rank, within 1 %."""

    name = "quantile"
    takes = "number"
    definition = staticmethod(definitions.quantile)

    def problem(self, aggregation: Aggregation, field: Field | None) -> str:
        if not 0 <= aggregation.share <= 1:
            return f"quantile {aggregation.share:g}: allowed is 0 to 1"
        return super().problem(aggregation, field)

    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        return (Bins(_valued(field, flag)),)

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        queries, cells, counts = parts[0]
        found, there = quantiles(queries, cells, counts, len(times), aggregation.share)
        return np.where(there, found / scale, aggregation.default)


class DecayedCount(Operation):
    """Number of events that fade with their age."""

    name = "decayed_count"
    tolerance = 1e-12
    definition = staticmethod(definitions.decayed_count)

    def problem(self, aggregation: Aggregation, field: Field | None) -> str:
        if aggregation.half_life <= 0:
            return "half_life must be more than 0 microseconds"
        if aggregation.window > MAX_HALF_LIVES * aggregation.half_life:
            return (
                f"the window has {aggregation.window / aggregation.half_life:g} half-lives; at most 500 are told apart"
            )
        return super().problem(aggregation, field)

    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        return (Decayed(Selection(flag=flag), aggregation.half_life),)

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        return parts[0][0]


class DecayedMean(DecayedCount):
    """Mean of a field with weights that fade with age."""

    name = "decayed_mean"
    takes = "number"
    definition = staticmethod(definitions.decayed_mean)

    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        return (Decayed(_valued(field, flag), aggregation.half_life),)

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        weights, weighted = parts[0]
        there = weights > 0
        return np.where(there, weighted / np.where(there, weights, 1.0) / scale, aggregation.default)


class LabelOperation(Operation):
    """An aggregation of labels. Its parts are the events of the window, the labelled ones and the positive ones."""

    from_labels = True

    def measures(self, aggregation: Aggregation, field: Field | None, flag: Lane | None) -> tuple[Measure, ...]:
        return (Count(Selection()),)


class LabelCount(LabelOperation):
    """Number of known positives."""

    name = "label_count"

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        return parts[2][0].astype(np.float64)


class LabelRate(LabelOperation):
    """Share of known positives among all events, or among the labelled ones."""

    name = "label_rate"

    def value(self, aggregation: Aggregation, scale: int, parts: tuple[Parts, ...], times: Int64Array) -> FloatArray:
        (counts,), (labelled,), (positive,) = parts
        over = counts if aggregation.over == "all" else labelled
        return np.where(over > 0, positive / np.maximum(over, 1), aggregation.default)


class LabelMean(LabelRate):
    """Mean of the known labels over the labelled events."""

    name = "label_mean"


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        CountEvents(),
        Total(),
        Mean(),
        Minimum(),
        Maximum(),
        StandardDeviation(),
        Last(),
        TimeSinceLast(),
        Distinct(),
        Quantile(),
        DecayedCount(),
        DecayedMean(),
        LabelCount(),
        LabelRate(),
        LabelMean(),
    )
}


def _valued(field: Field | None, flag: Lane | None) -> Selection:
    assert field is not None
    return Selection(value_lane(field), flag)


def _present(field: Field | None, flag: Lane | None) -> Selection:
    """The events that have the field; one that is never absent need not be looked at."""
    assert field is not None
    return _valued(field, flag) if field.optional else Selection(flag=flag)
