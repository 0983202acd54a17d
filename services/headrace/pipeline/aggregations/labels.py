"""Labels of windows: how many events are labelled, and how many of them positive, by what is known when it is asked."""

from __future__ import annotations

import numpy as np

from headrace.pipeline.events import Int64Array
from headrace.pipeline.sorted_logs import SortedLog, Span


def known_labels(log: SortedLog, span: Span, times: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Number of labels and of positives in each of n windows that are known at its event's time, shapes (n,).

    Args:
        log: label records.
        span: the windows.
        times: event times in microseconds, shape (n,).
    """
    if not span.sizes.any():
        none = np.zeros(len(times), np.int64)
        return none, none
    query, at = span.expanded
    known = log.column("known")[at] <= times[query]
    query, at = query[known], at[known]

    def summed(lane: str) -> Int64Array:
        return np.bincount(query, log.column(lane)[at], len(times)).astype(np.int64)

    return summed("labelled"), summed("positive")
