"""Sketches whose answer does not depend on the order of the events: distinct counts and quantiles.

Both keep cells, and a window's answer follows from the cells of its events, wherever it was cut.

- Distinct counts: HyperLogLog with 2^12 registers and the estimator of Ertl, "New cardinality estimation algorithms for
  HyperLogLog sketches" (2017), algorithm 6. Standard error 1.6 %; below some hundred values it is nearly exact.
- Quantiles: the bins of DDSketch (Masson, Rim, Lee, PVLDB 12, 2019) with a relative accuracy of 1 %. Bin i > 0 holds
  the integers above g^(i-2) up to g^(i-1), g = 101/99; their borders are computed with integers, so every machine has
  the same ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from headrace.pipeline.aggregations.lanes import RANK_BITS, REGISTER_BITS, Lookup, largest_integer
from headrace.pipeline.aggregations.measures import Measure, Parts
from headrace.pipeline.events import FloatArray, Int64Array
from headrace.pipeline.schema import EXACT_INTEGER
from headrace.pipeline.sorted_logs import SortedLog, Span

REGISTERS = 1 << REGISTER_BITS
_HASH_BITS = 64 - REGISTER_BITS
_RANKS = 2**RANK_BITS
_CELL_BITS = REGISTER_BITS + RANK_BITS
_BIN_BITS = 13
_GAMMA = 101, 99


@dataclass(frozen=True)
class SketchMeasure(Measure):
    """A measure that is a set of cells: parts are query, cell and how often it was met, shapes (k,) each."""

    expands = True
    cell_columns: ClassVar[tuple[tuple[str, str], ...]]
    """How a coarse section keeps a cell."""

    counted: ClassVar[bool] = True
    """Whether it matters how often a cell was met; otherwise the counts among its parts are empty."""

    def cell_of(self, of: Lookup) -> Int64Array:
        """The cell of each record that counts, -1 for the others, shape (m,)."""
        raise NotImplementedError

    @property
    def most_cells(self) -> int:
        """How many cells there can be."""
        raise NotImplementedError

    def merge(self, groups: Int64Array, cells: Int64Array, counts: Int64Array) -> Parts:
        """Cells of the same group made one, sorted by group and cell: groups, cells, counts."""
        raise NotImplementedError

    def over(self, log: SortedLog, span: Span, at: Int64Array, number: int) -> Parts:
        query, position = span.expanded
        if log.bucket:
            counts = log.column("count")[position].astype(np.int64) if self.counted else self._ones(0)
            return query, log.column("cell")[position].astype(np.int64), counts
        cells = log.remembered(number, lambda: self.cell_of(log.column))[position]
        there = slice(None) if self.selection.all else cells != -1
        query = query[there]
        return query, cells[there], self._ones(len(query))

    def _ones(self, count: int) -> Int64Array:
        return np.ones(count if self.counted else 0, np.int64)

    def own(self, of: Lookup, count: int) -> Parts:
        cells = self.cell_of(of)
        there = np.flatnonzero(cells != -1)
        assert len(cells) == count
        return there, cells[there], self._ones(len(there))

    def repeated(self, own: Parts, count: int, times: int) -> Parts:
        query, cells, counts = own
        copies = np.arange(times)[:, None] * count
        return (query + copies).ravel(), np.tile(cells, times), np.tile(counts, times)

    def join(self, first: Parts, second: Parts) -> Parts:
        return tuple(np.concatenate(pair) for pair in zip(first, second, strict=True))


class Registers(SketchMeasure):
    """HyperLogLog: a cell is register << 6 | rank, and the highest rank of a register counts."""

    cell_columns = (("cell", "<u4"),)
    counted = False

    def cell_of(self, of: Lookup) -> Int64Array:
        return self.selection.values(of, -1)

    @property
    def most_cells(self) -> int:
        return REGISTERS

    def merge(self, groups: Int64Array, cells: Int64Array, counts: Int64Array) -> Parts:
        found = np.sort(_keys(groups, cells, _CELL_BITS))
        found = found[_ends(found >> RANK_BITS)].astype(np.int64)
        return found >> _CELL_BITS, found & (2**_CELL_BITS - 1), np.ones(len(found), np.int64)


class Bins(SketchMeasure):
    """DDSketch: a cell is the number of a bin, made positive by an offset."""

    cell_columns = (("cell", "<u2"), ("count", "<u4"))

    def cell_of(self, of: Lookup) -> Int64Array:
        cells = bins(self.selection.values(of, 0))
        mask = self.selection.mask(of)
        return cells if mask is None else np.where(mask, cells, -1)

    @property
    def most_cells(self) -> int:
        lane = self.selection.value
        assert lane is not None
        assert lane.field is not None
        return 2 * int(np.searchsorted(_borders(), int(largest_integer(lane.field)))) + 3

    def merge(self, groups: Int64Array, cells: Int64Array, counts: Int64Array) -> Parts:
        keys = _keys(groups, cells, _BIN_BITS)
        if (counts == 1).all():
            keys = np.sort(keys)
            until = np.arange(1, len(keys) + 1)
        else:
            by = np.argsort(keys)
            keys, until = keys[by], np.cumsum(counts[by])
        ends = _ends(keys)
        found = keys[ends].astype(np.int64)
        return found >> _BIN_BITS, found & (2**_BIN_BITS - 1), np.diff(until[ends], prepend=0)


def distinct_counts(queries: Int64Array, cells: Int64Array, count: int) -> FloatArray:
    """Estimated number of distinct values for each of `count` queries from their merged cells, shape (count,).

    Args:
        queries: query of each cell, shape (k,).
        cells: at most one per query and register, shape (k,).
        count: number of queries.
    """
    ranks = np.bincount((queries << RANK_BITS) | (cells & (_RANKS - 1)), minlength=count << RANK_BITS)
    return estimates(ranks.reshape(count, _RANKS))


def estimates(ranks: Int64Array) -> FloatArray:
    """Estimated number of distinct values, shape (n,).

    Args:
        ranks: for each query how many registers have each rank, shape (n, 64).
    """
    empty = REGISTERS - ranks.sum(axis=1)
    sigma, tau = _sigma(), _tau()
    z = (ranks[:, 1 : _HASH_BITS + 1] * np.exp2(-np.arange(1.0, _HASH_BITS + 1))).sum(axis=1)
    z += REGISTERS * (tau[ranks[:, _HASH_BITS + 1]] * 2.0**-_HASH_BITS + sigma[empty])
    found: FloatArray = REGISTERS**2 / (2 * math.log(2)) / z
    return found


def bins(values: Int64Array) -> Int64Array:
    """The bin of each integer, shape (m,): 2^12 for 0, above it for positive ones, below it for negative ones."""
    borders, size = _borders(), np.abs(values)
    # The logarithm is at most one bin off, and the borders put that right: no search, and still exact.
    at = np.ceil(np.log(np.maximum(size, 1)) / math.log(_GAMMA[0] / _GAMMA[1])).astype(np.int64)
    at = np.minimum(at, len(borders) - 1)
    at -= (at > 0) & (borders[at - 1] >= size)
    at += borders[at] < size
    middle = np.int64(2 ** (_BIN_BITS - 1))
    return np.where(values == 0, middle, middle + np.where(values < 0, -1 - at, 1 + at))


def bin_values(cells: Int64Array) -> FloatArray:
    """What stands for each bin: at most 1 % from every value in it, shape (m,)."""
    numbers = cells - 2 ** (_BIN_BITS - 1)
    values: FloatArray = np.copysign(_representatives()[np.abs(numbers)], numbers)
    return values


def quantiles(
    queries: Int64Array, cells: Int64Array, counts: Int64Array, of: int, share: float
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """A quantile for each of `of` queries from their merged bins, and whether it has any, shapes (of,).

    It is the bin of the value at rank floor(share x (n - 1)), counted from 0, of the n values in order.
    """
    ends = np.searchsorted(queries, np.arange(of + 1))
    before = np.concatenate([[0], np.cumsum(counts)])
    begins = before[ends[:-1]]
    totals = before[ends[1:]] - begins
    there = totals > 0
    if not len(cells):
        return np.zeros(of), there
    rank = begins + np.floor(share * np.maximum(totals - 1, 0)).astype(np.int64)
    at = np.searchsorted(before, rank, "right") - 1
    return bin_values(cells[np.minimum(at, len(cells) - 1)]), there


def _keys(groups: Int64Array, cells: Int64Array, bits: int) -> npt.NDArray[Any]:
    """Group and cell in one number, of 32 bits where that is enough: these are sorted in half the time."""
    keys = (groups << bits) | cells
    return keys.astype(np.uint32) if len(keys) and groups.max() < 1 << (32 - bits) else keys


def _ends(found: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which of sorted values are the last of their kind, shape (m,)."""
    ends = np.ones(len(found), np.bool_)
    np.not_equal(found[1:], found[:-1], out=ends[:-1])
    return ends


@cache
def _borders() -> Int64Array:
    """The largest integer of each bin of positive integers."""
    borders: list[int] = []
    up, down = 1, 1
    while not borders or borders[-1] < EXACT_INTEGER:
        borders.append(up // down)
        up, down = up * _GAMMA[0], down * _GAMMA[1]
    return np.array(borders, np.int64)


@cache
def _representatives() -> FloatArray:
    """By number of the bin, 2 g^i / (g + 1) for the upper border g^i; 0 for bin 0."""
    values, up, down = [0.0], 1, 1
    for _ in range(len(_borders())):
        values.append((up * 2 * _GAMMA[1]) / (down * (_GAMMA[0] + _GAMMA[1])))
        up, down = up * _GAMMA[0], down * _GAMMA[1]
    return np.array(values)


@cache
def _sigma() -> FloatArray:
    """Ertl's sigma of k / 4096 for k = 0 to 4096, the share of empty registers."""
    x = np.arange(REGISTERS + 1) / REGISTERS
    x[-1] = 0.0
    y = 1.0
    z: FloatArray = x.copy()
    while True:
        x = x * x
        more = z + x * y
        y += y
        if (more == z).all():
            z[-1] = np.inf
            return z
        z = more


@cache
def _tau() -> FloatArray:
    """Ertl's tau of 1 - k / 4096 for k = 0 to 4096, k the number of full registers."""
    x = 1 - np.arange(REGISTERS + 1) / REGISTERS
    edge = (x == 0) | (x == 1)
    x[edge] = 0.5
    y = 1.0
    z: FloatArray = 1 - x
    while True:
        x = np.sqrt(x)
        y *= 0.5
        more = z - (1 - x) ** 2 * y
        if (more == z).all():
            found: FloatArray = z / 3
            found[edge] = 0.0
            return found
        z = more
