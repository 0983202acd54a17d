"""One pass over the records of a key: what is kept of each interval between two edges of windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.pipeline.compiled.machine_code import Bytes, FloatArray, Integers, compiled, load32, load64
from headrace.pipeline.compiled.tables import (
    ABSENT,
    BYTE,
    COUNT,
    FLAG,
    INT32,
    INT64,
    KIND,
    LARGEST,
    LATEST,
    OFFSET,
    OPTIONAL,
    ROW,
    SCALE,
    SELECTED,
    SMALLEST,
    SQUARES,
    SUM,
    TYPE,
    UINT32,
    VALUE,
)

LABEL_BYTES = 32
_KNOWN, _LABELLED, _POSITIVE = 16, 24, 28
MOST = int(np.iinfo(np.int64).max)
LEAST = int(np.iinfo(np.int64).min)

FEW_RECORDS = 1 << 18
MOST_PASSES = 16
"""An entity whose keys are asked so often that its records would be passed so many times on average, and that are no
few records, is left to the evaluation that sorts them once."""


@compiled
def lane_value(raw: Bytes, at: int, kind: int) -> Any:
    """The value of a lane at a byte."""
    if kind == INT32:
        return load32(raw, at)
    if kind == INT64:
        return load64(raw, at)
    if kind == UINT32:
        return load32(raw, at) & 0xFFFFFFFF
    return np.int64(raw[at])


@compiled
def _later(time: int, identity: int, than_time: int, than_identity: int) -> Any:
    """Whether an event comes at or behind another in (time, id) order; ids are unsigned."""
    return time > than_time or (time == than_time and np.uint64(identity) >= np.uint64(than_identity))


@compiled
def _with(kind: int, x: Any, time: int, identity: int, parts: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
    """The parts of a measure with an event of the value `x` added."""
    first, second, third = parts
    if kind == COUNT:
        return first + 1, second, third
    if kind == SUM:
        return first + x, second, third
    if kind == SQUARES:
        high, low = x >> 20, x & 0xFFFFF
        return first + high * high, second + high * low, third + low * low
    if kind == SMALLEST:
        return min(first, x), second, third
    if kind == LARGEST:
        return min(first, -x), second, third
    if _later(time, identity, first, second):
        return time, identity, x
    return parts


@compiled
def _summed(raw: Bytes, first: int, last: int, size: int, kind: int) -> int:
    """The sum of a lane that is always there."""
    summed = 0
    if kind == INT32:
        for at in range(first, last, size):
            summed += load32(raw, at)
    else:
        for at in range(first, last, size):
            summed += load64(raw, at)
    return summed


@compiled
def add_run(
    lanes: Integers, measures: Integers, raw: Bytes, begin: int, end: int, size: int, interval: int, kept: Integers
) -> None:
    """Add records behind each other that lie in one interval to what is kept of it."""
    for m in range(len(measures)):
        kind, value, flag, row = measures[m, KIND], measures[m, VALUE], measures[m, FLAG], measures[m, ROW]
        if kind == SELECTED:
            continue
        if kind == COUNT and value < 0 and flag < 0:
            kept[row, interval] += (end - begin) // size
            continue
        optional = value >= 0 and lanes[value, OPTIONAL] != 0
        of = lanes[value, TYPE] if value >= 0 else BYTE
        offset = lanes[value, OFFSET] if value >= 0 else 0
        if kind == SUM and flag < 0 and not optional:
            kept[row, interval] += _summed(raw, begin + offset, end + offset, size, of)
            continue
        absent = lanes[value, ABSENT] if optional else 0
        shown = lanes[flag, OFFSET] if flag >= 0 else 0
        three = kind in (SQUARES, LATEST)
        parts = (
            (kept[row, interval], kept[row + 1, interval], kept[row + 2, interval])
            if three
            else (kept[row, interval], 0, 0)
        )
        for at in range(begin, end, size):
            if flag >= 0 and raw[at + shown] == 0:
                continue
            x = lane_value(raw, at + offset, of) if value >= 0 else 0
            if optional and x == absent:
                continue
            parts = _with(kind, x, load64(raw, at), load64(raw, at + 8), parts)
        kept[row, interval] = parts[0]
        if three:
            kept[row + 1, interval], kept[row + 2, interval] = parts[1], parts[2]


@compiled
def pass_records(
    lanes: Integers,
    measures: Integers,
    raw: Bytes,
    begin: int,
    end: int,
    size: int,
    ends: Integers,
    interval: int,
    kept: Integers,
    runs: Integers,
) -> int:
    """Add the records between two bytes, in runs that lie in one interval; the interval of the last one.

    Args:
        lanes: of the records.
        measures: of the windows.
        raw: the records.
        begin: first byte.
        end: behind the last one.
        size: of a record.
        ends: last time of each interval.
        interval: where to look first.
        kept: of each interval.
        runs: filled, unless it has no rows: behind a first row with their number, begin, end and interval of each.
    """
    started, at = begin, begin
    while at < end:
        low = ends[interval - 1] if interval > 0 else LEAST
        high = ends[interval] if interval < len(ends) else MOST
        while at < end and low < load64(raw, at) <= high:
            at += size
        if at > started and 0 < interval < len(ends):
            add_run(lanes, measures, raw, started, at, size, interval, kept)
            if len(runs):
                runs[0, 0] += 1
                run = runs[0, 0]
                runs[run, 0], runs[run, 1], runs[run, 2] = started, at, interval
        started = at
        if at < end:
            time = load64(raw, at)
            while interval < len(ends) and time > ends[interval]:
                interval += 1
            while interval > 0 and time <= ends[interval - 1]:
                interval -= 1
    return interval


@compiled
def own_value(lanes: Integers, measure: Integers, given: FloatArray, event: int) -> tuple[bool, Any]:
    """Whether an event that asks is selected itself, and its value. `given` are the lanes of all events."""
    value, flag = measure[VALUE], measure[FLAG]
    if flag >= 0 and given[flag, event] == 0.0:
        return False, 0
    if value < 0:
        return True, 0
    number = given[value, event]
    if np.isnan(number):
        return False, 0
    x = np.int64(np.rint(number * lanes[value, SCALE]))
    return lanes[value, OPTIONAL] == 0 or x != lanes[value, ABSENT], x


@compiled
def add_itself(lanes: Integers, measures: Integers, given: FloatArray, event: int, itself: int, kept: Integers) -> None:
    """Add an event that asks to what is kept of an interval of its own. `given` are the lanes of all events."""
    for m in range(len(measures)):
        kind, row = measures[m, KIND], measures[m, ROW]
        if kind in (LATEST, SELECTED):
            continue
        there, x = own_value(lanes, measures[m], given, event)
        if there:
            first, second, third = _with(kind, x, 0, 0, (kept[row, itself], 0, 0))
            kept[row, itself] = first
            if kind == SQUARES:
                kept[row + 1, itself], kept[row + 2, itself] = second, third


@compiled
def pass_labels(raw: Bytes, begin: int, end: int, now: int, ends: Integers, kept: Integers) -> None:
    """Add the labels between two bytes that are known by now: how many, and how many positive."""
    interval = 0
    for at in range(begin, end, LABEL_BYTES):
        time = load64(raw, at)
        while interval < len(ends) and time > ends[interval]:
            interval += 1
        while interval > 0 and time <= ends[interval - 1]:
            interval -= 1
        if load64(raw, at + _KNOWN) <= now:
            kept[0, interval] += load32(raw, at + _LABELLED)
            kept[1, interval] += load32(raw, at + _POSITIVE)


@compiled
def clear(measures: Integers, kept: Integers) -> None:
    """Nothing is kept of any interval."""
    kept[:] = 0
    for m in range(len(measures)):
        if measures[m, KIND] == SMALLEST or measures[m, KIND] == LARGEST:
            kept[measures[m, ROW], :] = MOST
        elif measures[m, KIND] == LATEST:
            kept[measures[m, ROW], :] = -1


@compiled
def has_coarse(raw: Bytes, starts: Integers, size: int) -> bool:
    """Whether a log has carriers of a coarse section behind its header."""
    for slot in range(len(starts) - 1):
        at = starts[slot]
        if starts[slot + 1] - at >= size and load64(raw, at) == -1 and load64(raw, at + 8) >> 32 != 0:
            return True
    return False


@compiled
def torn(starts: Integers, size: int) -> bool:
    """Whether a log does not end with a whole record."""
    rest = 0
    for slot in range(len(starts) - 1):
        rest += (starts[slot + 1] - starts[slot]) % size
    return bool(rest != 0)


@compiled
def too_many(slots: Integers, starts: Integers, size: int) -> bool:
    """Whether the records of the keys would be passed too often."""
    passed = 0
    for slot in slots:
        passed += starts[slot + 1] - starts[slot]
    stored = starts[len(starts) - 1] - starts[0]
    return passed > FEW_RECORDS * size and passed > MOST_PASSES * stored
