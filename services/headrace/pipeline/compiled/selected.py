"""Features for which every selected record of a window is looked at: quantiles, distinct counts, decayed sums.

The runs of an event are the records of its key that lie in an interval, as `pass_records` found them: begin, end and
interval, behind a first row with their number.
"""

from __future__ import annotations

import numpy as np

from headrace.pipeline.compiled.machine_code import Bytes, FloatArray, Integers, compiled, load64
from headrace.pipeline.compiled.records import lane_value, own_value
from headrace.pipeline.compiled.tables import (
    ABSENT,
    BYTE,
    COLUMN,
    DEFAULT,
    DELAY,
    DIVISOR,
    FLAG,
    HALF_LIFE,
    ITSELF,
    OFFSET,
    OPERATION,
    OPTIONAL,
    RANK_COUNTS,
    RANKS,
    SHARE,
    TYPE,
    VALUE,
    WEIGHTED_MEAN,
    WEIGHTS,
)

_RANK_BITS = 6
_RANK_MASK = (1 << _RANK_BITS) - 1


@compiled
def values(
    lanes: Integers,
    measure: Integers,
    raw: Bytes,
    size: int,
    runs: Integers,
    low: int,
    high: int,
    found: Integers,
) -> int:
    """Gather the values of the intervals low + 1 to high, and how many they are.

    Args:
        lanes: of the records.
        measure: which records are selected, and by which lane.
        raw: the records.
        size: of a record.
        runs: of the event.
        low: number of the last interval before the window.
        high: number of the last interval in it.
        found: filled with the values.
    """
    value, flag = measure[VALUE], measure[FLAG]
    offset, of, absent = lanes[value, OFFSET], lanes[value, TYPE], lanes[value, ABSENT]
    optional = lanes[value, OPTIONAL] != 0
    shown = lanes[flag, OFFSET] if flag >= 0 else 0
    count = 0
    for run in range(1, runs[0, 0] + 1):
        if low < runs[run, 2] <= high:
            for at in range(runs[run, 0], runs[run, 1], size):
                if flag >= 0 and raw[at + shown] == 0:
                    continue
                x = lane_value(raw, at + offset, of)
                if not optional or x != absent:
                    found[count] = x
                    count += 1
    return count


@compiled
def ranked(found: Integers, count: int, rank: int) -> int:
    """The value at a rank, from 0, of the first `count` values, which are put in another order (Hoare's selection)."""
    low, high = 0, count - 1
    while low < high:
        # The middle one of three, so that values in order are no bad case.
        a, b, c = found[low], found[(low + high) // 2], found[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while found[i] < pivot:
                i += 1
            while found[j] > pivot:
                j -= 1
            if i <= j:
                found[i], found[j] = found[j], found[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return found[rank]  # type: ignore[no-any-return]


@compiled
def ranks(found: Integers, count: int, registers: Bytes, out: Integers) -> None:
    """How many registers of a HyperLogLog have each rank.

    Args:
        found: cells, register << 6 | rank.
        count: number of cells.
        registers: room for the highest rank of each register.
        out: filled, shape (64,); place 0 is not used.
    """
    registers[:] = 0
    out[:RANKS] = 0
    for k in range(count):
        register, rank = found[k] >> _RANK_BITS, found[k] & _RANK_MASK
        highest = registers[register]
        if rank > highest:
            registers[register] = rank
            out[rank] += 1
            if highest:
                out[highest] -= 1


@compiled
def decayed(
    lanes: Integers,
    measure: Integers,
    raw: Bytes,
    size: int,
    runs: Integers,
    low: int,
    high: int,
    now: int,
    half_life: float,
) -> tuple[float, float]:
    """Sums of weights 2^(-age / half life), and of weights times values, over the intervals low + 1 to high.

    The sums carry what rounding takes from them (Neumaier, 1974), so that they do not depend on the order.
    """
    value, flag = measure[VALUE], measure[FLAG]
    offset = lanes[value, OFFSET] if value >= 0 else 0
    of = lanes[value, TYPE] if value >= 0 else BYTE
    optional = value >= 0 and lanes[value, OPTIONAL] != 0
    absent = lanes[value, ABSENT] if optional else 0
    shown = lanes[flag, OFFSET] if flag >= 0 else 0
    weights, weights_rest, weighted, weighted_rest = 0.0, 0.0, 0.0, 0.0
    for run in range(1, runs[0, 0] + 1):
        if low < runs[run, 2] <= high:
            for at in range(runs[run, 0], runs[run, 1], size):
                if flag >= 0 and raw[at + shown] == 0:
                    continue
                x = lane_value(raw, at + offset, of) if value >= 0 else 0
                if optional and x == absent:
                    continue
                weight = np.exp2(float(now - load64(raw, at)) / -half_life)
                weights, weights_rest = _added(weights, weights_rest, weight)
                weighted, weighted_rest = _added(weighted, weighted_rest, weight * float(x))
    return weights + weights_rest, weighted + weighted_rest


@compiled
def _added(total: float, rest: float, term: float) -> tuple[float, float]:
    """A sum with a term added, and what rounding has taken from it so far."""
    after = total + term
    if abs(total) >= abs(term):
        return after, rest + ((total - after) + term)
    return after, rest + ((term - after) + total)


@compiled
def look_at_all(
    lanes: Integers,
    measure: Integers,
    feature: Integers,
    floats: FloatArray,
    raw: Bytes,
    size: int,
    runs: Integers,
    low: int,
    high: int,
    now: int,
    given: FloatArray,
    event: int,
    found: Integers,
    registers: Bytes,
    parts: Integers,
) -> float:
    """A feature of one event, or its parts if it is finished by numpy.

    Args:
        lanes: of the records.
        measure: which records are selected, and by which lane.
        feature: its row in the table of features.
        floats: its row in the table of floats.
        raw: the records.
        size: of a record.
        runs: of the event.
        low: number of the last interval before the window.
        high: number of the last interval in it.
        now: time of the event.
        given: the lanes of all events.
        event: number of the event.
        found: room for the values of all records and of the event.
        registers: room for those of a HyperLogLog.
        parts: of the features that are finished by numpy.
    """
    operation, place = feature[OPERATION], feature[COLUMN]
    there, x = False, 0
    if feature[ITSELF]:
        there, x = own_value(lanes, measure, given, event)
    if operation in (WEIGHTS, WEIGHTED_MEAN):
        weights, weighted = decayed(lanes, measure, raw, size, runs, low, high, now - feature[DELAY], floats[HALF_LIFE])
        if there:
            weights, weighted = weights + 1.0, weighted + float(x)
        if operation == WEIGHTS:
            return weights
        return weighted / weights / float(feature[DIVISOR]) if weights > 0.0 else floats[DEFAULT]
    count = values(lanes, measure, raw, size, runs, low, high, found)
    if there:
        found[count] = x
        count += 1
    if operation == RANK_COUNTS:
        ranks(found, count, registers, parts[place : place + RANKS])
    else:
        parts[place] = count
        parts[place + 1] = ranked(found, count, int(np.floor(floats[SHARE] * float(count - 1)))) if count else 0
    return 0.0
