"""Old records of a log made few: one record per bucket of the length that all window edges are multiples of.

Behind the horizon no window edge falls into a bucket any more, so what its events add together is all that is asked of
them. Integers, registers and bins are the same to the bit, decayed sums to 1e-12. What is given up is the id: a copy of
an event that is merged later than this is not recognised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.pipeline.aggregations.measures import DenseMeasure
from headrace.pipeline.aggregations.sketches import SketchMeasure
from headrace.pipeline.coarse_sections import (
    CELL_RECORD,
    HEADER_TIME,
    Cells,
    carried_bytes,
    join_log,
    read_header,
    read_section,
)
from headrace.pipeline.events import Int64Array
from headrace.pipeline.sorted_logs import SortedLog, Span

if TYPE_CHECKING:
    from headrace.pipeline.state import EntityPlan

Records = npt.NDArray[Any]


def coarsen(
    plan: EntityPlan, value: bytes, horizon: int, expired: int = HEADER_TIME, *, only_smaller: bool = True
) -> bytes:
    """A stored event log with its buckets behind the horizon merged where that takes fewer bytes.

    The newest event stays as it is, so that the end of the log says how old it is. Returned as it is when nothing
    changes; otherwise with the next epoch.

    Args:
        plan: the entity.
        value: the stored log.
        horizon: event time in microseconds that no event evaluated from now on lies before.
        expired: event time in microseconds at or before which records are dropped.
        only_smaller: whether buckets of few events stay as they are.
    """
    record, layout = plan.event_record, plan.coarse
    stored = np.frombuffer(value, record)
    raw = stored[stored["time"] > max(expired, HEADER_TIME)]
    dropped = len(raw) < int((stored["time"] != HEADER_TIME).sum())
    section = b""
    if layout is not None:
        section = read_section(value, record)
        buckets, cells = layout.decode(section)
        alive = buckets["time"] + layout.bucket - 1 > expired
        dropped |= not alive.all()
        buckets = buckets[alive]
        cells = {number: of[of["time"] + layout.bucket - 1 > expired] for number, of in cells.items()}
        merged = _Merged(plan, raw, horizon)
        chosen = merged.smaller(buckets["time"]) if only_smaller else merged.starts
        if len(chosen):
            buckets, cells = merged.join(chosen, buckets, cells)
            raw = raw[~np.isin(raw["time"] // layout.bucket * layout.bucket, chosen) | merged.kept]
            dropped = True
        section = layout.encode(buckets, cells)
    if not dropped:
        return value
    epoch, _ = read_header(value) or (0, 0)
    return join_log(record, epoch + 1, section, raw)


class _Merged:
    """The records of one log behind the horizon, by bucket."""

    def __init__(self, plan: EntityPlan, raw: Records, horizon: int) -> None:
        assert plan.coarse is not None
        self._plan = plan
        self._layout = plan.coarse
        bucket = plan.bucket
        self.kept = raw["time"] >= horizon // bucket * bucket
        if len(raw):
            self.kept[np.lexsort((raw["id"], raw["time"]))[-1]] = True
        self._log = SortedLog(raw[~self.kept], np.zeros(int((~self.kept).sum()), np.int64))
        starts, low, counts = np.unique(
            self._log.column("time") // bucket * bucket, return_index=True, return_counts=True
        )
        self.starts = starts
        self._counts = counts
        self._span = Span(low, low + counts)
        self._cells = self._sketched()

    def smaller(self, coarse: Int64Array) -> Int64Array:
        """Starts of the buckets to merge: those that are coarse already, and those that take fewer bytes when merged.

        Args:
            coarse: starts of the buckets that are coarse already, shape (b,).
        """
        carried = np.full(len(self.starts), self._layout.record.itemsize)
        for number, stored in self._layout.sketches:
            at = np.searchsorted(self.starts, self._cells[number]["time"])
            carried += np.bincount(at, minlength=len(self.starts)) * stored.itemsize
        smaller = self._counts * carried_bytes(self._plan.event_record) > carried
        return self.starts[smaller | np.isin(self.starts, coarse)]

    def join(self, chosen: Int64Array, buckets: Records, cells: Cells) -> tuple[Records, Cells]:
        """Bucket records and cells, those of the chosen buckets joined with what was there.

        Args:
            chosen: starts of the buckets.
            buckets: the bucket records.
            cells: the cells of each sketch.
        """
        starts = np.union1d(chosen, buckets["time"])
        joined = np.zeros(len(starts), self._layout.record)
        joined["time"] = starts
        of_new, of_old = np.searchsorted(starts, chosen), np.searchsorted(starts, buckets["time"])
        taken = np.isin(self.starts, chosen)
        ends = self.starts + self._layout.bucket
        joined_cells: Cells = {}
        for measure, number in self._plan.measures.items():
            if isinstance(measure, DenseMeasure):
                names = [name for name, _ in measure.columns(number)]
                parts = measure.over(self._log, self._span, ends, number)
                old = [
                    np.full(len(starts), none, joined.dtype[n]) for n, none in zip(names, measure.empty, strict=True)
                ]
                new = [part.copy() for part in old]
                for name, there, part, added in zip(names, old, parts, new, strict=True):
                    there[of_old] = buckets[name]
                    added[of_new] = part[taken]
                for name, part in zip(names, measure.join(tuple(old), tuple(new)), strict=True):
                    joined[name] = part
            elif isinstance(measure, SketchMeasure):
                new_cells = self._cells[number]
                both = np.concatenate([cells[number], new_cells[np.isin(new_cells["time"], chosen)]])
                groups = np.searchsorted(starts, both["time"])
                merged = measure.merge(groups, both["cell"].astype(np.int64), both["count"].astype(np.int64))
                joined_cells[number] = _cell_records(starts, *merged)
        return joined, joined_cells

    def _sketched(self) -> Cells:
        found: Cells = {}
        for measure, number in self._plan.measures.items():
            if isinstance(measure, SketchMeasure):
                groups, cells, counts = measure.over(self._log, self._span, self.starts, number)
                found[number] = _cell_records(self.starts, *measure.merge(groups, cells, counts))
        return found


def _cell_records(starts: Int64Array, groups: Int64Array, cells: Int64Array, counts: Int64Array) -> Records:
    records = np.zeros(len(groups), CELL_RECORD)
    records["time"], records["cell"], records["count"] = starts[groups], cells, counts
    return records


def coarsen_labels(plan: EntityPlan, value: bytes, horizon: int, expired: int = HEADER_TIME) -> bytes:
    """A stored label log with the labels of buckets behind the horizon merged that are known there.

    A merged label is a label record like others: at the start of its bucket, known when the last of them was.

    Args:
        plan: the entity.
        value: the stored log.
        horizon: event time in microseconds that no event evaluated from now on lies before.
        expired: event time in microseconds at or before which records are dropped.
    """
    from headrace.pipeline.state import LABEL_RECORD

    stored = np.frombuffer(value, LABEL_RECORD)
    kept = stored[stored["time"] > max(expired, HEADER_TIME)]
    dropped = len(kept) < int((stored["time"] != HEADER_TIME).sum())
    if plan.bucket and len(kept):
        starts = kept["time"] // plan.bucket * plan.bucket
        old = (starts + plan.bucket <= horizon) & (kept["known"] <= horizon)
        old[np.argmax(kept["time"])] = False
        merged_starts, group, counts = np.unique(starts[old], return_inverse=True, return_counts=True)
        if (counts > 1).any():
            merged = np.zeros(len(merged_starts), LABEL_RECORD)
            merged["time"] = merged_starts
            np.maximum.at(merged["known"], group, kept["known"][old])
            for lane in ("labelled", "positive"):
                np.add.at(merged[lane], group, kept[lane][old])
            kept = np.concatenate([merged[(merged["labelled"] != 0) | (merged["positive"] != 0)], kept[~old]])
            dropped = True
    if not dropped:
        return value
    epoch, _ = read_header(value) or (0, 0)
    return join_log(LABEL_RECORD, epoch + 1, b"", kept)
