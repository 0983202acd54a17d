"""The records of many keys' logs as one array sorted by (key, time, id), and the windows in it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from headrace.pipeline.coarse_sections import HEADER_TIME, CoarseLayout, read_section
from headrace.pipeline.events import Int64Array

Records = npt.NDArray[Any]
Positions = npt.NDArray[np.intp]
T = TypeVar("T")


@dataclass(frozen=True)
class Span:
    """For each of n queries the records of its window: positions low to high, high excluded, shapes (n,)."""

    low: Positions
    high: Positions

    @cached_property
    def sizes(self) -> Positions:
        """Number of records in each window, shape (n,)."""
        return self.high - self.low

    @cached_property
    def expanded(self) -> tuple[Positions, Positions]:
        """Query and position of every record in every window, by query and position, shapes (sum of sizes,)."""
        sizes = self.sizes
        query = np.repeat(np.arange(len(sizes)), sizes)
        begins = np.cumsum(sizes) - sizes
        return query, np.arange(len(query)) + np.repeat(self.low - begins, sizes)


class SortedLog:
    """The records of several logs, sorted by (slot, time, id). A slot is the number of a key in the batch.

    Attributes:
        single: whether it is the log of one key.
        bucket: length in microseconds of what one record stands for; 0 for single events.
        coarse: the coarse records of the same logs, None when there are none.
        cells: their sketch cells, by number of the measure.
    """

    def __init__(
        self, records: Records, slots: Int64Array, more: Records | None = None, *, keys: int = 0, bucket: int = 0
    ) -> None:
        """Sort.

        Args:
            records: structured records with a `time` column, headers included, shape (m,).
            slots: slot of each record, of `more` too, shape (m + k,).
            more: further records behind them, shape (k,).
            keys: number of slots where it is known; with one, `slots` is not looked at.
            bucket: what one record stands for.
        """
        self.bucket = bucket
        self.coarse: SortedLog | None = None
        self.cells: Mapping[int, SortedLog] = {}
        self._remembered: dict[Hashable, Any] = {}
        self._parts = [records] if more is None or not len(more) else [records, more]
        # What is passed over lies before every window, so a log of one key may keep it.
        times = self._parts[0]["time"] if len(self._parts) == 1 else np.concatenate([p["time"] for p in self._parts])
        self._kept: npt.NDArray[Any] | None = None
        self.single = keys == 1
        if self.single:
            order: Int64Array = times
        else:
            events = times != HEADER_TIME
            if not events.all():
                self._kept = np.flatnonzero(events)
                times, slots = times[self._kept], slots[self._kept]
            self._base = int(times.min()) if len(times) else 0
            self._span = (int(times.max()) if len(times) else 0) - self._base + 2
            if len(slots) and (int(slots.max()) + 1) * self._span >= 2**63:
                raise ValueError("too many keys over too long a time for one evaluation; split the batch")
            order = slots * self._span + (times - self._base)
        if (order[1:] < order[:-1]).any():
            by = np.argsort(order, kind="stable")
            order = order[by]
            self._kept = by if self._kept is None else self._kept[by]
        self._order = np.ascontiguousarray(order)
        if "id" in (records.dtype.names or ()):
            tied = order[1:] == order[:-1]
            if tied.any():
                self._sort_ties(tied)

    def _sort_ties(self, tied: npt.NDArray[np.bool_]) -> None:
        """Put records of the same slot and time in the order of their ids, so that order never depends on arrival."""
        rows = np.flatnonzero(np.append(tied, False) | np.append(False, tied))
        kept = np.arange(len(self._order)) if self._kept is None else self._kept
        kept[rows] = kept[rows[np.lexsort((self.column("id")[rows], self._order[rows]))]]
        self._kept = kept
        self._remembered.clear()

    @staticmethod
    def from_values(
        values: Sequence[bytes],
        record: np.dtype[Any],
        more: Records,
        more_slots: Int64Array,
        coarse: CoarseLayout | None = None,
    ) -> SortedLog:
        """Logs as stored, with the batch's own records behind them.

        Args:
            values: one stored log per slot; empty for a key without one.
            record: layout.
            more: records that are not stored yet, shape (k,).
            more_slots: their slots, shape (k,).
            coarse: layout of the coarse sections, None for logs that never have one.
        """
        keys = len(values)
        stored = np.frombuffer(values[0] if keys == 1 else b"".join(values), record)
        if keys == 1:
            log = SortedLog(stored, more_slots, more, keys=1)
        else:
            slots = np.repeat(np.arange(keys), [len(value) // record.itemsize for value in values])
            log = SortedLog(stored, np.concatenate([slots, more_slots]) if len(more) else slots, more)
        sections = [read_section(value, record) for value in values] if coarse is not None else []
        if coarse is not None and any(sections):
            buckets, bucket_slots, cells = coarse.decode_all(sections)
            log.coarse = SortedLog(buckets, bucket_slots, keys=keys, bucket=coarse.bucket)
            log.cells = {
                number: SortedLog(found, of, keys=keys, bucket=coarse.bucket) for number, (found, of) in cells.items()
            }
        return log

    def __len__(self) -> int:
        return len(self._order)

    def after(self, slots: Int64Array, times: Int64Array) -> Positions:
        """For each query the position behind the last record of its slot at or before its time.

        Args:
            slots: slot of each query, shape (n,).
            times: times of the queries, shape (n,) or (k, n); before 1970 is as 1970.

        Returns:
            Positions, in the shape of `times`.
        """
        if self.single:
            return np.searchsorted(self._order, np.maximum(times, HEADER_TIME), "right")
        wanted = np.clip(times - self._base, -1, self._span - 2)
        wanted += slots * self._span
        return np.searchsorted(self._order, wanted, "right")

    @cached_property
    def times(self) -> list[int]:
        """Times of the records in sorted order, for a log of one key."""
        times: list[int] = self._order.tolist()
        return times

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column of the records in sorted order, shape (m,)."""
        return self.remembered(("column", name), lambda: self._gathered(name))

    def _gathered(self, name: str) -> npt.NDArray[Any]:
        parts = [part[name] for part in self._parts]
        whole = np.ascontiguousarray(parts[0]) if len(parts) == 1 else np.concatenate(parts)
        return whole if self._kept is None else whole[self._kept]

    def remembered(self, what: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` makes of this log, computed once. `what` names it."""
        if what not in self._remembered:
            self._remembered[what] = compute()
        found: T = self._remembered[what]
        return found
