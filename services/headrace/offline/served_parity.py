"""Served vectors against what they should have been: at the positions that they recorded, from what the topics hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from headrace.offline.parity import Parity, compare_vectors
from headrace.offline.progress import Progress, untold
from headrace.offline.recomputation import recompute_at
from headrace.offline.served_vectors import EVENT_ID, LATE, ServedVectors
from headrace.offline.topic_histories import TopicEvents, TopicLabels
from headrace.pipeline import Pipeline
from headrace.pipeline.events import Int64Array
from headrace.pipeline.recompute import Positions
from headrace.pipeline.state import FeaturePlan

NOT_IN_EVENTS = "whose event is not among the events"
OUT_OF_REACH = "whose windows reach back beyond what the topics hold"


@dataclass(frozen=True)
class ServedParity:
    """How vectors compare.

    Attributes:
        parity: of those that were compared.
        left_out: others, by why.
        different: event ids of those that differ.
    """

    parity: Parity
    left_out: Counter[str]
    different: list[str]


def measure(
    plan: FeaturePlan,
    served: ServedVectors,
    events: TopicEvents,
    labels: TopicLabels,
    *,
    tolerance: float = 0.0,
    progress: Progress = untold,
) -> ServedParity:
    """Recompute served vectors and compare.

    Args:
        plan: the compiled pipeline.
        served: the vectors. They must have been read before the topics, so that these hold what they were made of.
        events: what `events` holds.
        labels: what `outcomes` holds.
        tolerance: largest difference that counts as none.
        progress: told of vectors, once per entity.
    """
    row_of = {event_id: row for row, event_id in reversed(list(enumerate(events.history.events.ids)))}
    times = events.history.events.times
    complete_from = max(events.complete_from, labels.complete_from)
    if complete_from:
        complete_from += max(entity.retention for entity in plan.entities) if plan.entities else 0
    left_out = Counter(served.left_out)
    rows: list[int] = []
    compared: list[int] = []
    for at, event_id in enumerate(served.ids):
        row = row_of.get(event_id)
        if row is None:
            left_out[NOT_IN_EVENTS] += 1
        elif row in events.late:
            left_out[LATE] += 1
        elif times[row] < complete_from:
            left_out[OUT_OF_REACH] += 1
        else:
            rows.append(row)
            compared.append(at)
    of = np.array(compared, np.intp)
    queries = events.history.events.take(np.array(rows, np.intp))
    positions = Positions(
        _of_all(served.positions.events, of, events.partitions),
        _of_all(served.positions.outcomes, of, labels.partitions),
    )
    recomputed = recompute_at(plan, queries, positions, events.history, labels.history, progress)
    parity = compare_vectors(
        plan.pipeline,
        served.values[of],
        recomputed,
        left_out=served.overridden[of],
        tolerance=tolerance,
    )
    return ServedParity(parity, left_out, [queries.ids[row] for row in parity.different.tolist()])


def measure_against(
    pipeline: Pipeline, served: ServedVectors, recomputed: Path, *, tolerance: float = 0.0
) -> ServedParity:
    """Compare served vectors with a training set, whatever their positions: everything is taken as known.

    Args:
        pipeline: the declaration.
        served: the vectors.
        recomputed: the training set.
        tolerance: largest difference that counts as none.
    """
    names = pipeline.feature_names
    asked = pl.DataFrame({EVENT_ID: served.ids}, schema={EVENT_ID: pl.String}).with_row_index("#at")
    expected = (
        pl.scan_parquet(recomputed).select(EVENT_ID, *names).join(asked.lazy(), on=EVENT_ID).sort("#at").collect()
    )
    at = expected["#at"].to_numpy().astype(np.intp)
    parity = compare_vectors(
        pipeline,
        served.values[at],
        np.array(expected.select(names).to_numpy(), np.float64),
        left_out=served.overridden[at],
        tolerance=tolerance,
    )
    left_out = Counter(served.left_out)
    if len(at) < len(served.ids):
        left_out[NOT_IN_EVENTS] += len(served.ids) - len(at)
    return ServedParity(parity, left_out, [served.ids[row] for row in at[parity.different].tolist()])


def _of_all(
    positions: Int64Array | None, rows: np.ndarray[tuple[int], np.dtype[np.intp]], width: int
) -> Int64Array | None:
    """Positions of some rows, with a column for every partition that there is."""
    if positions is None:
        return None
    out = np.full((len(rows), max(width, positions.shape[1])), -1, np.int64)
    out[:, : positions.shape[1]] = positions[rows]
    return out
