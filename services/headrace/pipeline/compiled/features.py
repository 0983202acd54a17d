"""From what is kept of the intervals to features."""

from __future__ import annotations

from headrace.pipeline.compiled.machine_code import Integers, compiled
from headrace.pipeline.compiled.records import MOST
from headrace.pipeline.compiled.tables import (
    AVERAGE,
    COLUMN,
    COUNTED,
    DIVISOR,
    FIRST,
    ITSELF,
    KIND,
    LABEL_COUNT,
    LABEL_RATE,
    LARGEST,
    LAST,
    OPERATION,
    OVER_LABELLED,
    ROW,
    SECOND,
    SINCE_LAST,
    SMALLEST,
    SQUARES,
    SUMMED,
    THIRD,
)


@compiled
def _joined(measures: Integers, m: int, low: int, high: int, itself: int, kept: Integers, part: int) -> int:
    """A part of a measure over the intervals low + 1 to high, and the one of the event itself unless that is 0."""
    kind, row = measures[m, KIND], measures[m, ROW] + part
    if kind in (SMALLEST, LARGEST):
        least = kept[row, itself] if itself else MOST
        for interval in range(low + 1, high + 1):
            least = min(least, kept[row, interval])
        return least
    summed = kept[row, itself] if itself else 0
    for interval in range(low + 1, high + 1):
        summed += kept[row, interval]
    return summed


@compiled
def _last(measures: Integers, m: int, low: int, high: int, kept: Integers) -> int:
    """The interval of low + 1 to high with the last event in it; 0 for none."""
    row = measures[m, ROW]
    for interval in range(high, low, -1):
        if kept[row, interval] != -1:
            return interval
    return 0


@compiled
def _quotient(dividend: int, divisor: int, default: float) -> float:
    return float(dividend) / float(divisor) if divisor > 0 else default


@compiled
def _of_labels(
    measures: Integers, feature: Integers, default: float, low: int, high: int, kept: Integers, label_kept: Integers
) -> float:
    """A feature of labels."""
    labelled, positive = 0, 0
    for interval in range(low + 1, high + 1):
        labelled += label_kept[0, interval]
        positive += label_kept[1, interval]
    if feature[OPERATION] == LABEL_COUNT:
        return float(positive)
    if feature[OVER_LABELLED] != 0:
        return _quotient(positive, labelled, default)
    return _quotient(positive, _joined(measures, feature[FIRST], low, high, 0, kept, 0), default)


@compiled
def _of_last(
    measures: Integers, feature: Integers, default: float, low: int, high: int, time: int, kept: Integers
) -> float:
    """A feature of the last event before this one."""
    interval, row = _last(measures, feature[FIRST], low, high, kept), measures[feature[FIRST], ROW]
    if not interval:
        return default
    if feature[OPERATION] == LAST:
        return float(kept[row + 2, interval]) / float(feature[DIVISOR])
    return float(time - kept[row, interval]) / 1e6


@compiled
def measured(
    measures: Integers,
    feature: Integers,
    default: float,
    low: int,
    high: int,
    time: int,
    kept: Integers,
    label_kept: Integers,
) -> float:
    """One feature of one event.

    Args:
        measures: of the windows.
        feature: its row in the table of features.
        default: over an empty window.
        low: number of the last interval before the window.
        high: number of the last interval in it.
        time: of the event.
        kept: of each interval; the last one is that of the event itself.
        label_kept: labels of each interval.
    """
    operation, first, divisor = feature[OPERATION], feature[FIRST], feature[DIVISOR]
    if operation in (LABEL_COUNT, LABEL_RATE):
        return _of_labels(measures, feature, default, low, high, kept, label_kept)
    if operation in (LAST, SINCE_LAST):
        return _of_last(measures, feature, default, low, high, time, kept)
    itself = kept.shape[1] - 1 if feature[ITSELF] else 0
    joined = _joined(measures, first, low, high, itself, kept, 0)
    if operation == COUNTED:
        return float(joined)
    if operation == SUMMED:
        return float(joined) / float(divisor)
    if operation == AVERAGE:
        count = _joined(measures, feature[SECOND], low, high, itself, kept, 0)
        return _quotient(joined, count * divisor, default)
    if joined == MOST:
        return default
    return float(-joined if measures[first, KIND] == LARGEST else joined) / float(divisor)


@compiled
def raw_parts(measures: Integers, feature: Integers, low: int, high: int, kept: Integers, out: Integers) -> None:
    """The parts of a feature's measures, for one that is computed elsewhere.

    Args:
        measures: of the windows.
        feature: its row in the table of features.
        low: number of the last interval before the window.
        high: number of the last interval in it.
        kept: of each interval; the last one is that of the event itself.
        out: one part behind the other.
    """
    itself = kept.shape[1] - 1 if feature[ITSELF] else 0
    at = feature[COLUMN]
    for m in (feature[FIRST], feature[SECOND], feature[THIRD]):
        if m >= 0:
            for part in range(3 if measures[m, KIND] == SQUARES else 1):
                out[at] = _joined(measures, m, low, high, itself, kept, part)
                at += 1
