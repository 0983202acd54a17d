"""What aggregations are made of: measures of a window that can be joined from parts of it.

A measure knows the raw lanes that it reads, its parts over windows of single events and of coarse records, and its part
of the event that asks. Parts of a whole are joined without regard to where it was cut, so that a coarse record stands
for its events exactly. All parts are integers but the decayed ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.pipeline.aggregations.lanes import BoolArray, Lane, Lookup
from headrace.pipeline.events import Int64Array
from headrace.pipeline.sorted_logs import SortedLog, Span

Parts = tuple[npt.NDArray[Any], ...]
DIRECT_LIMIT = 4
"""How often each record may be looked at, on average, before a table of ranges pays."""

HALF_BITS = 20
"""A value is split here when it is squared, so that sums of its parts stay within 64 bits."""


@dataclass(frozen=True)
class Selection:
    """Which events count.

    Attributes:
        value: those that have this value; None for all.
        flag: those that this filter lets through; None for all.
    """

    value: Lane | None = None
    flag: Lane | None = None

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """What must be kept of an event."""
        return tuple(lane for lane in (self.value, self.flag) if lane is not None)

    @property
    def all(self) -> bool:
        """Whether every event counts."""
        return self.flag is None and (self.value is None or self.value.absent is None)

    def mask(self, of: Lookup) -> BoolArray | None:
        """Which records count, shape (m,); None for all."""
        mask = None
        if self.value is not None and self.value.absent is not None:
            mask = of(self.value.name) != self.value.absent
        if self.flag is not None:
            flagged = of(self.flag.name) != 0
            mask = flagged if mask is None else mask & flagged
        return mask

    def values(self, of: Lookup, otherwise: int) -> Int64Array:
        """The value of each record that counts, `otherwise` for the others, shape (m,)."""
        assert self.value is not None
        values = of(self.value.name).astype(np.int64)
        mask = self.mask(of)
        return values if mask is None else np.where(mask, values, otherwise)


@dataclass(frozen=True)
class Measure(ABC):
    """A measure over windows.

    Attributes:
        selection: which events count.
    """

    selection: Selection
    expands: ClassVar[bool] = False
    """Whether every record of a window is looked at."""

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The raw lanes that it reads."""
        return self.selection.lanes

    @abstractmethod
    def over(self, log: SortedLog, span: Span, at: Int64Array, number: int) -> Parts:
        """Its parts over n windows.

        Args:
            log: single events, or coarse records that keep this measure.
            span: the windows.
            at: the time that ages are counted to, in microseconds, shape (n,).
            number: of the measure, which names its columns in coarse records.
        """

    @abstractmethod
    def own(self, of: Lookup, count: int) -> Parts:
        """Its parts over each of `count` single events, each on its own."""

    @abstractmethod
    def repeated(self, own: Parts, count: int, times: int) -> Parts:
        """Its parts over single events, `count` of them, for each of several windows one after the other."""

    @abstractmethod
    def join(self, first: Parts, second: Parts) -> Parts:
        """Its parts over two disjoint sets of events, the second the later one as a rule."""


@dataclass(frozen=True)
class DenseMeasure(Measure):
    """A measure with a fixed number of values per window, which a coarse record keeps in columns."""

    dtypes: ClassVar[tuple[str, ...]] = ("<i8",)
    empty: ClassVar[tuple[int, ...]] = (0,)

    def repeated(self, own: Parts, count: int, times: int) -> Parts:
        return own if times == 1 else tuple([np.concatenate((part,) * times) for part in own])

    def columns(self, number: int) -> list[tuple[str, str]]:
        """Names and types of its columns in coarse records."""
        return [(f"{number}.{part}", dtype) for part, dtype in enumerate(self.dtypes)]

    def stored(self, log: SortedLog, number: int) -> Parts:
        """What each coarse record keeps of it."""
        return tuple(log.column(name) for name, _ in self.columns(number))


class AdditiveMeasure(DenseMeasure):
    """Integers that are summed: over a window a difference of running sums."""

    @abstractmethod
    def terms(self, of: Lookup) -> Parts:
        """What each record adds, int64, shapes (m,)."""

    def over(self, log: SortedLog, span: Span, at: Int64Array, number: int) -> Parts:
        running = log.remembered(
            number,
            lambda: [_running(term) for term in (self.stored(log, number) if log.bucket else self.terms(log.column))],
        )
        return tuple([sums[span.high] - sums[span.low] for sums in running])

    def own(self, of: Lookup, count: int) -> Parts:
        return self.terms(of)

    def join(self, first: Parts, second: Parts) -> Parts:
        return tuple([a + b for a, b in zip(first, second, strict=True)])


class Count(AdditiveMeasure):
    """Number of events that count."""

    def terms(self, of: Lookup) -> Parts:
        mask = self.selection.mask(of)
        assert mask is not None
        return (mask.astype(np.int64),)

    def over(self, log: SortedLog, span: Span, at: Int64Array, number: int) -> Parts:
        if not log.bucket and self.selection.all:
            return (span.sizes.astype(np.int64),)
        return super().over(log, span, at, number)

    def own(self, of: Lookup, count: int) -> Parts:
        return (np.ones(count, np.int64),) if self.selection.all else self.terms(of)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        return () if self.selection.all else self.selection.lanes


class Sum(AdditiveMeasure):
    """Sum of the value."""

    def terms(self, of: Lookup) -> Parts:
        return (self.selection.values(of, 0),)


class SumOfSquares(AdditiveMeasure):
    """Sum of squares in three parts: with x = a 2^20 + b, the sums of a², ab and b²."""

    dtypes = ("<i8", "<i8", "<i8")
    empty = (0, 0, 0)

    def terms(self, of: Lookup) -> Parts:
        values = self.selection.values(of, 0)
        high, low = values >> HALF_BITS, values & (2**HALF_BITS - 1)
        return high * high, high * low, low * low


@dataclass(frozen=True)
class Extreme(DenseMeasure):
    """The smallest value, or the largest as the smallest of the negated ones.

    Windows that hold few records together are gone through; for others a table of power-of-two ranges is made, of which
    two cover any window.

    Attributes:
        sign: 1 for the smallest, -1 for the largest.
    """

    sign: int = 1
    empty = (np.iinfo(np.int64).max,)

    def over(self, log: SortedLog, span: Span, at: Int64Array, number: int) -> Parts:
        table: list[Int64Array] = log.remembered(number, lambda: [self._values(log, number)])
        found = np.full(len(span.low), self.empty[0])
        if span.sizes.sum() <= DIRECT_LIMIT * len(log):
            rows = np.flatnonzero(span.sizes)
            edges = np.stack([span.low[rows], span.high[rows]], axis=1).ravel()
            if len(rows):
                found[rows] = np.minimum.reduceat(table[0], edges)[::2]
            return (found,)
        levels = np.frexp(span.sizes.astype(np.float64))[1] - 1
        for level in range(int(levels.max(initial=-1)) + 1):
            half = 1 << (level - 1) if level else 0
            if len(table) == level:
                table.append(np.minimum(table[-1][:-half], table[-1][half:]))
            rows = np.flatnonzero(levels == level)
            found[rows] = np.minimum(table[level][span.low[rows]], table[level][span.high[rows] - (1 << level)])
        return (found,)

    def _values(self, log: SortedLog, number: int) -> Int64Array:
        """The value of each record, and one behind them that is larger than all, shape (m + 1,)."""
        values = self.stored(log, number)[0] if log.bucket else self._signed(log.column)
        return np.append(values, self.empty[0])

    def own(self, of: Lookup, count: int) -> Parts:
        return (self._signed(of),)

    def join(self, first: Parts, second: Parts) -> Parts:
        return (np.minimum(first[0], second[0]),)

    def _signed(self, of: Lookup) -> Int64Array:
        return self.selection.values(of, self.sign * self.empty[0]) * self.sign


class Latest(DenseMeasure):
    """Time, id and value of the last event in (time, id) order; time -1 where there is none."""

    dtypes = ("<i8", "<u8", "<i8")
    empty = (-1, 0, 0)

    def over(self, log: SortedLog, span: Span, at: Int64Array, number: int) -> Parts:
        positions = log.remembered(number, lambda: self._positions(log, number))
        at_last = positions[span.high]
        there = at_last >= span.low
        at_last = np.where(there, at_last, 0)
        if not len(log):
            return tuple(np.full(len(there), none, dtype) for none, dtype in zip(self.empty, self.dtypes, strict=True))
        columns = self.stored(log, number) if log.bucket else self._columns(log)
        return tuple(
            np.where(there, c[at_last], c.dtype.type(none)) for c, none in zip(columns, self.empty, strict=True)
        )

    def _positions(self, log: SortedLog, number: int) -> npt.NDArray[np.intp]:
        """For each position the last record before it that counts, -1 for none, shape (m + 1,)."""
        numbers = np.arange(len(log))
        if log.bucket:
            mask: BoolArray | None = self.stored(log, number)[0] != self.empty[0]
        else:
            mask = self.selection.mask(log.column)
        if mask is not None:
            numbers = np.where(mask, numbers, -1)
        return np.concatenate([[-1], np.maximum.accumulate(numbers)])

    def _columns(self, log: SortedLog) -> Parts:
        value = self.selection.value
        values = np.zeros(len(log), np.int64) if value is None else log.column(value.name).astype(np.int64)
        return log.column("time"), log.column("id"), values

    def own(self, of: Lookup, count: int) -> Parts:
        raise NotImplementedError("the last event is an earlier one")

    def join(self, first: Parts, second: Parts) -> Parts:
        later = (second[0] > first[0]) | ((second[0] == first[0]) & (second[1] > first[1]))
        return tuple(np.where(later, b, a) for a, b in zip(first, second, strict=True))


@dataclass(frozen=True)
class Decayed(DenseMeasure):
    """Sums of weights 2^(-age / half life), and of weights times values, taken in (time, id) order.

    Attributes:
        half_life: in microseconds.
    """

    half_life: int = 1
    expands = True
    dtypes = ("<f8", "<f8")
    empty = (0, 0)

    def over(self, log: SortedLog, span: Span, at: Int64Array, number: int) -> Parts:
        query, position = span.expanded
        # What a coarse record keeps has aged until its bucket ended.
        ages = at[query] - log.column("time")[position] - log.bucket
        weights = np.exp2(ages / -self.half_life)
        raw = not log.bucket
        terms = log.remembered(number, lambda: self.own(log.column, len(log))) if raw else self.stored(log, number)
        return tuple(np.bincount(query, weights * term[position], len(at)) for term in terms)

    def own(self, of: Lookup, count: int) -> Parts:
        mask = self.selection.mask(of)
        ones = np.ones(count) if mask is None else mask.astype(np.float64)
        if self.selection.value is None:
            return ones, np.zeros(count)
        return ones, self.selection.values(of, 0).astype(np.float64)

    def join(self, first: Parts, second: Parts) -> Parts:
        return first[0] + second[0], first[1] + second[1]


def _running(values: npt.NDArray[Any]) -> Int64Array:
    """Running sums with a leading 0, shape (m + 1,)."""
    sums = np.empty(len(values) + 1, np.int64)
    sums[0] = 0
    np.cumsum(values, dtype=np.int64, out=sums[1:])
    return sums
