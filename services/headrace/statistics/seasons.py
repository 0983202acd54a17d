"""Rows gathered by season of event time, and the watermark that says when a season is whole."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headrace.statistics.drift import FloatArray, IntArray

HashArray = NDArray[np.uint64]


class Watermark:
    """How far event time has come: over the active partitions the least highest time, less the allowed lateness.

    It never goes back. One row far ahead of its partition does not move it, unless the next one is as far ahead.

    Args:
        lateness: how far rows may come out of order, in microseconds of event time.
        max_jump: largest unconfirmed step ahead, in microseconds.
    """

    def __init__(self, lateness: int, max_jump: int) -> None:
        self._lateness = lateness
        self._max_jump = max_jump
        self._highest: dict[int, int] = {}
        self._leap: dict[int, int] = {}
        self.at_us: int | None = None

    def accept(self, partition: int, times: IntArray) -> NDArray[np.bool_]:
        """Take note of the next rows of a partition.

        Parameters
        ----------
        partition
            Its number.
        times
            Event times in microseconds since 1970-01-01 UTC, int64 (n,), in the order of the partition.

        Returns
        -------
        Rows that are to be used: all but the unconfirmed leaps ahead, bool (n,).
        """
        accepted = np.ones(len(times), dtype=np.bool_)
        if not len(times):
            return accepted
        highest = self._highest.get(partition, int(times[0]))
        if partition not in self._leap and int(times.max()) <= highest + self._max_jump:
            self._highest[partition] = max(highest, int(times.max()))
            return accepted
        for row, time in enumerate(times.tolist()):
            leap = self._leap.pop(partition, None)
            if time > highest + self._max_jump and (leap is None or abs(time - leap) > self._max_jump):
                self._leap[partition] = time
                accepted[row] = False
            else:
                highest = max(highest, time)
        self._highest[partition] = highest
        return accepted

    def advance(self, active: Collection[int]) -> int | None:
        """Move on and return where it is; None while an active partition has shown nothing.

        Parameters
        ----------
        active
            Partitions that have more to read or have shown something lately. With none it stays where it is.
        """
        if active and all(partition in self._highest for partition in active):
            least = min(self._highest[partition] for partition in active) - self._lateness
            self.at_us = least if self.at_us is None else max(self.at_us, least)
        return self.at_us


@dataclass(frozen=True, eq=False)
class Season:
    """The rows of one closed season, in the order of (time, id).

    Attributes:
        number: event time in microseconds divided by the length of a season, rounded down.
        times: microseconds since 1970-01-01 UTC, int64 (n,).
        ids: hashes of the event ids, uint64 (n,), each once.
        values: float64 (n, c).
        rows: distinct rows, or more than n when the season held more than its capacity.
        duplicates: rows whose id was there already.
    """

    number: int
    times: IntArray
    ids: HashArray
    values: FloatArray
    rows: int
    duplicates: int


class SeasonRows:
    """Gathers rows until their season is whole.

    An id counts once. Of a season with more rows than `capacity` those with the lowest hashes are kept: a sample that
    is the same whatever the order in which they came.

    Args:
        season: length in microseconds.
        columns: values of a row.
        capacity: most rows kept of a season.
        keep: of rows with the same id the "first" or the "last".
    """

    def __init__(self, season: int, columns: int, *, capacity: int, keep: Literal["first", "last"]) -> None:
        self._season = season
        self._columns = columns
        self._capacity = capacity
        self._keep = keep
        self._open: dict[int, _OpenSeason] = {}
        self.closed_before: int | None = None
        """Rows of seasons below this number come too late."""

    def add(self, ids: HashArray, times: IntArray, values: FloatArray) -> int:
        """Take in rows.

        Parameters
        ----------
        ids, times, values
            uint64 (n,), int64 (n,) in microseconds, float64 (n, columns).

        Returns
        -------
        How many came too late.
        """
        numbers = times // self._season
        late = 0
        for number in np.unique(numbers).tolist():
            rows = np.nonzero(numbers == number)[0]
            if self.closed_before is not None and number < self.closed_before:
                late += len(rows)
                continue
            held = self._open.get(number)
            if held is None:
                held = self._open[number] = _OpenSeason(self._columns, self._capacity, self._keep)
            held.add(ids[rows], times[rows], values[rows])
        return late

    def close(self, watermark_us: int) -> list[Season]:
        """The seasons that end at or before the watermark and have rows, in order; they are given up."""
        self.closed_before = max(watermark_us // self._season, self.closed_before or 0)
        whole = sorted(number for number in self._open if number < self.closed_before)
        return [self._open.pop(number).close(number) for number in whole]


class _OpenSeason:
    def __init__(self, columns: int, capacity: int, keep: Literal["first", "last"]) -> None:
        self._capacity = capacity
        self._keep = keep
        self._ids: list[HashArray] = [np.empty(0, dtype=np.uint64)]
        self._times: list[IntArray] = [np.empty(0, dtype=np.int64)]
        self._values: list[FloatArray] = [np.empty((0, columns))]
        self._pending = 0
        self._cut: np.uint64 | None = None
        self._beyond = 0
        self._added = 0

    def add(self, ids: HashArray, times: IntArray, values: FloatArray) -> None:
        self._added += len(ids)
        if self._cut is not None:
            kept = ids <= self._cut
            self._beyond += len(ids) - int(kept.sum())
            ids, times, values = ids[kept], times[kept], values[kept]
        self._ids.append(ids)
        self._times.append(times)
        self._values.append(values)
        self._pending += len(ids)
        if self._pending >= self._capacity:
            self._compact()

    def close(self, number: int) -> Season:
        self._compact()
        ids, times, values = self._ids[0], self._times[0], self._values[0]
        order = np.lexsort((ids, times))
        rows = len(ids) + self._beyond
        return Season(number, times[order], ids[order], values[order], rows, self._added - rows)

    def _compact(self) -> None:
        """One block, each id once, not more than the capacity."""
        ids, times, values = np.concatenate(self._ids), np.concatenate(self._times), np.concatenate(self._values)
        if self._keep == "first":
            unique, first = np.unique(ids, return_index=True)
        else:
            unique, first = np.unique(ids[::-1], return_index=True)
            first = len(ids) - 1 - first
        if len(unique) > self._capacity:
            self._beyond += len(unique) - self._capacity
            unique, first = unique[: self._capacity], first[: self._capacity]
            self._cut = unique[-1]
        self._ids, self._times, self._values = [unique], [times[first]], [values[first]]
        self._pending = 0
