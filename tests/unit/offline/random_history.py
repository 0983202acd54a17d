"""Random streams of any pipeline: events over several partitions, copies, stragglers, labels and corrections."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from headrace.pipeline import EventColumns, Pipeline
from headrace.pipeline.recompute import EventHistory, LabelHistory, Positions
from headrace.pipeline.schema import Field

PARTITIONS = 3


@dataclass(frozen=True)
class RandomHistory:
    """What the topics of a pipeline hold.

    Attributes:
        events: events; some have the id and the content of an earlier one.
        labels: outcomes, in sequence for each event.
    """

    events: EventHistory
    labels: LabelHistory


def random_history(
    pipeline: Pipeline, random: np.random.Generator, count: int, *, keys: int = 4, span: int | None = None
) -> RandomHistory:
    """A stream of `count` events over `span` microseconds: by default twice what the features reach back."""
    reach = max(max(a.delay + a.window for a in view.aggregations) for view in pipeline.views)
    span = span or 2 * reach
    # A few moments on a grid, so that events fall on edges of windows and on each other.
    grid = max(span // 40, 1)
    times = 1 + random.integers(0, 40, count) * grid + random.integers(0, 2, count) * random.integers(0, grid, count)
    texts = [[_text(field, random, keys) for field in pipeline.event.texts] for _ in range(count)]
    numbers = [[_number(field, random) for field in pipeline.event.numbers] for _ in range(count)]
    of = np.arange(count)
    copies = random.random(count) < 0.15
    of[copies] = [random.integers(0, row + 1) for row in np.flatnonzero(copies)]
    for row in range(count):
        of[row] = of[of[row]]
    events = EventColumns.from_rows(
        pipeline.event,
        [f"e{i}" for i in of.tolist()],
        times[of].tolist(),
        [texts[i] for i in of.tolist()],
        [numbers[i] for i in of.tolist()],
    )
    partitions = random.integers(0, PARTITIONS, count)
    return RandomHistory(
        EventHistory(events, partitions, np.arange(count, dtype=np.int64)),
        _labels(pipeline, random, events, np.unique(of), span),
    )


def random_positions(random: np.random.Generator, history: RandomHistory, queries: int) -> Positions:
    """Some states of the logs, each shared by several queries."""
    states = random.integers(0, max(queries // 3, 1), queries)

    def upto(offsets: int) -> np.ndarray:
        return random.integers(-1, max(offsets, 1), (queries, PARTITIONS))[states]

    return Positions(upto(len(history.events.offsets)), upto(len(history.labels.offsets)))


def _labels(
    pipeline: Pipeline, random: np.random.Generator, events: EventColumns, rows: np.ndarray, span: int
) -> LabelHistory:
    chosen: list[int] = []
    values: list[float] = []
    previous: list[float] = []
    known: list[int] = []
    for row in rows[random.random(len(rows)) < 0.7].tolist():
        last, time = math.nan, int(events.times[row])
        for _ in range(int(random.integers(1, 4))):
            value = float(random.integers(0, 2))
            time += int(random.integers(0, span // 2 + 2))
            if value == last:
                continue
            chosen, values = [*chosen, row], [*values, value]
            previous, known = [*previous, last], [*known, time]
            last = value
    partitions = random.integers(0, PARTITIONS, len(events))[chosen]
    return LabelHistory(
        [events.ids[row] for row in chosen],
        [[events.texts[field][row] for row in chosen] for field in pipeline.entity_fields],
        events.times[chosen] if chosen else np.zeros(0, np.int64),
        np.array(known, np.int64),
        np.array(values, np.float64),
        np.array(previous, np.float64),
        partitions if chosen else np.zeros(0, np.int64),
        np.arange(len(chosen), dtype=np.int64),
    )


def _text(field: Field, random: np.random.Generator, keys: int) -> str:
    if field.optional and random.random() < 0.2:
        return ""
    return f"{field.name[:1]}{random.integers(0, keys)}"


def _number(field: Field, random: np.random.Generator) -> float:
    if field.optional and random.random() < 0.2:
        return math.nan
    if field.kind == "boolean":
        return float(random.integers(0, 2))
    low, high = max(field.minimum, -1000.0), min(field.maximum, 1000.0)
    if field.kind == "integer":
        return float(random.integers(int(low), int(high) + 1))
    return float(low + (high - low) * random.integers(0, 1025) / 1024)
