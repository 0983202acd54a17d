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
    SMALLEST,
    SQUARES,
    SUM,
    TYPE,
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
def _value(raw: Bytes, at: int, kind: int) -> Any:
    """The value of a lane at a byte."""
    if kind == INT32:
        return load32(raw, at)
    if kind == INT64:
        return load64(raw, at)
    return np.int64(raw[at])


@compiled
def _keep(kind: int, row: int, interval: int, kept: Integers, x: Any, time: int, identity: int) -> None:
    """Add an event with the value `x` to what is kept of an interval."""
    if kind == COUNT:
        kept[row, interval] += 1
    elif kind == SUM:
        kept[row, interval] += x
    elif kind == SQUARES:
        high, low = x >> 20, x & 0xFFFFF
        kept[row, interval] += high * high
        kept[row + 1, interval] += high * low
        kept[row + 2, interval] += low * low
    elif kind == SMALLEST:
        kept[row, interval] = min(kept[row, interval], x)
    elif kind == LARGEST:
        kept[row, interval] = min(kept[row, interval], -x)
    elif _later(time, identity, kept[row, interval], kept[row + 1, interval]):
        kept[row, interval], kept[row + 1, interval], kept[row + 2, interval] = time, identity, x


@compiled
def _later(time: int, identity: int, than_time: int, than_identity: int) -> Any:
    """Whether an event comes at or behind another in (time, id) order; ids are unsigned."""
    return time > than_time or (time == than_time and np.uint64(identity) >= np.uint64(than_identity))


@compiled
def add_run(
    lanes: Integers, measures: Integers, raw: Bytes, begin: int, end: int, size: int, interval: int, kept: Integers
) -> None:
    """Add records behind each other that lie in one interval to what is kept of it."""
    for m in range(len(measures)):
        kind, value, flag, row = measures[m, KIND], measures[m, VALUE], measures[m, FLAG], measures[m, ROW]
        if kind == COUNT and value < 0 and flag < 0:
            kept[row, interval] += (end - begin) // size
            continue
        optional = value >= 0 and lanes[value, OPTIONAL] != 0
        of = lanes[value, TYPE] if value >= 0 else BYTE
        first = begin + (lanes[value, OFFSET] if value >= 0 else 0)
        last = first + end - begin
        if kind == SUM and flag < 0 and not optional:
            summed = 0
            if of == INT32:
                for at in range(first, last, size):
                    summed += load32(raw, at)
            else:
                for at in range(first, last, size):
                    summed += load64(raw, at)
            kept[row, interval] += summed
            continue
        absent = lanes[value, ABSENT] if optional else 0
        shown = lanes[flag, OFFSET] if flag >= 0 else 0
        for at in range(begin, end, size):
            if flag >= 0 and raw[at + shown] == 0:
                continue
            x = _value(raw, at + first - begin, of) if value >= 0 else 0
            if optional and x == absent:
                continue
            _keep(kind, row, interval, kept, x, load64(raw, at), load64(raw, at + 8))


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
) -> int:
    """Add the records between two bytes, in runs that lie in one interval; the interval of the last one."""
    started, at = begin, begin
    while at < end:
        low = ends[interval - 1] if interval > 0 else LEAST
        high = ends[interval] if interval < len(ends) else MOST
        while at < end and low < load64(raw, at) <= high:
            at += size
        if at > started and 0 < interval < len(ends):
            add_run(lanes, measures, raw, started, at, size, interval, kept)
        started = at
        if at < end:
            time = load64(raw, at)
            while interval < len(ends) and time > ends[interval]:
                interval += 1
            while interval > 0 and time <= ends[interval - 1]:
                interval -= 1
    return interval


@compiled
def add_itself(lanes: Integers, measures: Integers, given: FloatArray, event: int, itself: int, kept: Integers) -> None:
    """Add an event that asks to what is kept of an interval of its own. `given` are the lanes of all events."""
    for m in range(len(measures)):
        kind, value, flag = measures[m, KIND], measures[m, VALUE], measures[m, FLAG]
        if kind == LATEST or (flag >= 0 and given[flag, event] == 0.0):
            continue
        x: Any = 0
        if value >= 0:
            number = given[value, event]
            if lanes[value, OPTIONAL] != 0 and np.isnan(number):
                continue
            x = np.int64(np.rint(number * lanes[value, SCALE]))
        _keep(kind, measures[m, ROW], itself, kept, x, 0, 0)


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
