"""Pipelines that use every aggregation, one per operation of the table, and random streams for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.pipeline import (
    SECOND,
    Aggregation,
    Boolean,
    Entity,
    EventColumns,
    EventSchema,
    FeatureView,
    Integer,
    Label,
    Model,
    Money,
    Number,
    Pipeline,
    Text,
)
from headrace.pipeline.aggregations.operations import OPERATIONS
from headrace.pipeline.recompute import EventHistory, LabelHistory

SCHEMA = EventSchema(
    Text("key"),
    Text("page", optional=True),
    Money("cents", minimum=-(2**40), maximum=2**40),
    Number("weight", scale=1000, minimum=-50, maximum=50, optional=True),
    Integer("kind", minimum=0, maximum=5, optional=True),
    Boolean("flag"),
)
HOP = 5 * SECOND
LENGTHS = ((10, 0, 1), (60, 0, 5), (1, 0, 1), (30, 20, 5), (15, 10, 1))
"""Windows, delays and hops in seconds."""


def flagged(events: EventColumns) -> npt.NDArray[np.bool_]:
    return events.numbers["flag"] > 0


def aggregations(operation: str, *, hop: int = 1) -> list[Aggregation]:
    """Declarations of one operation with all that can be declared: windows, delays, hops, filters, optional fields."""
    table = OPERATIONS[operation]
    fields = {"nothing": [""], "number": ["cents", "weight"], "value": ["page", "kind"]}[table.takes]
    found = []
    for number, (least_window, least_delay, least_hop) in enumerate(LENGTHS):
        step = max(least_hop, hop)
        window, delay = -(-least_window // step) * step, -(-least_delay // step) * step
        for field in fields:
            for where in (None,) if table.from_labels else (None, flagged):
                for over in ("all", "labelled") if table.from_labels else ("all",):
                    found.append(
                        Aggregation(
                            f"{operation}_{number}_{field}_{'where' if where else 'all'}_{over}",
                            operation,
                            window * SECOND,
                            field,
                            (delay or (step if table.from_labels else 0)) * SECOND,
                            step * SECOND,
                            over=over,
                            default=-1.5,
                            where=where,
                            half_life=7 * SECOND if "decayed" in operation else 0,
                            share=(0.5, 0.9, 0.0, 1.0, 0.37)[number] if operation == "quantile" else 0.0,
                        )
                    )
    return found


def pipeline_of(*operations: str, hop: int = 1) -> Pipeline:
    """A pipeline with one entity and every declaration of these operations."""
    return Pipeline(
        "every",
        event=SCHEMA,
        entities=[Entity("key", "key")],
        key="key",
        features=[FeatureView("key", *(one for name in operations for one in aggregations(name, hop=hop)))],
        label=Label(horizon=1000 * SECOND),
        model=Model("none", lambda: None),
        lateness=20 * SECOND,
    )


@dataclass(frozen=True)
class Stream:
    """Events as they arrive, copies among them, with their labels.

    Attributes:
        history: the events with their places.
        labels: the labels with theirs.
    """

    history: EventHistory
    labels: LabelHistory


def stream(seed: int, size: int, *, partitions: int = 2, copies: bool = True) -> Stream:
    """A random stream of a few keys: ties in time, late events, copies, labels and corrections."""
    random = np.random.default_rng(seed)
    of = random.permutation(np.concatenate([np.arange(size), random.integers(0, size, copies * size // 5)]))
    if random.random() < 0.5:
        of = np.sort(of)
    times = 1_000_000_000 + np.sort(random.integers(0, 120, size)) * SECOND
    times += random.choice([0, 0, 1, SECOND - 1, -7 * SECOND], size)
    cents = random.choice([0, 1, -1, 99, 12345, 2**40, -(2**40), 2**33 + 7], size).astype(np.float64)
    weight = np.where(random.random(size) < 0.4, np.nan, random.integers(-50_000, 50_001, size) / 1000)
    kind = np.where(random.random(size) < 0.4, np.nan, random.integers(0, 6, size))
    events = EventColumns(
        [f"e{i}" for i in range(size)],
        times,
        {
            "key": [f"k{i}" for i in random.integers(0, 3, size)],
            "page": [f"p{i}" if i else "" for i in random.integers(0, 6, size)],
        },
        {"cents": cents, "weight": weight, "kind": kind, "flag": (random.random(size) < 0.5).astype(np.float64)},
    ).take(of)
    places = random.integers(0, partitions, len(of))
    offsets = np.zeros(len(of), np.int64)
    for partition in range(partitions):
        offsets[places == partition] = np.arange((places == partition).sum())
    chosen = np.unique(of, return_index=True)[1]
    labelled = chosen[random.random(len(chosen)) < 0.5]
    values = random.integers(0, 2, len(labelled)).astype(np.float64)
    corrected = random.random(len(labelled)) < 0.3
    rows = np.concatenate([labelled, labelled[corrected]])
    known = (
        np.concatenate([random.integers(0, 40, len(labelled)), random.integers(0, 40, int(corrected.sum()))]) * SECOND
    )
    return Stream(
        EventHistory(events, places, offsets),
        LabelHistory(
            [events.ids[row] for row in rows.tolist()],
            [[events.texts["key"][row] for row in rows.tolist()]],
            events.times[rows],
            events.times[rows] + known,
            np.concatenate([values, 1 - values[corrected]]),
            np.concatenate([np.full(len(labelled), np.nan), values[corrected]]),
            np.zeros(len(rows), np.int64),
            np.arange(len(rows)),
        ),
    )
