"""Compares what was served with its recomputation from the topics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.demo.recording import Recording
from headrace.offline.parity import compare_vectors
from headrace.offline.recomputation import recompute_at
from headrace.pipeline import EventColumns
from headrace.pipeline.recompute import EventHistory, LabelHistory, Positions, recompute
from headrace.pipeline.state import FeaturePlan

YARDSTICK_ROWS = 300
"""Vectors that are also recomputed by the definition of each feature, which takes long."""
SEED = 7


@dataclass(frozen=True)
class Parity:
    """How served features compare with their recomputation.

    Attributes:
        rows_compared: predictions whose features were compared.
        rows_different: those that differ from the recomputation at the positions that they recorded.
        rows_stale: those that differ from the recomputation with full knowledge.
        max_abs_error: largest difference at the recorded positions.
    """

    rows_compared: int
    rows_different: int
    rows_stale: int
    max_abs_error: float


def compare(plan: FeaturePlan, recording: Recording) -> Parity:
    """Recompute every served vector twice: at its recorded positions, and with everything known.

    Some are recomputed a third time, by the plain definition of each feature, which holds the other two to it.

    A vector that was served while the state could not be read is stale, and not compared at positions it has not.

    Args:
        plan: the compiled pipeline.
        recording: what was read back.
    """
    columns = recording.history.columns
    stored = np.flatnonzero(recording.event.offset >= 0)
    history = EventHistory(columns.take(stored), recording.event.partition[stored], recording.event.offset[stored])
    labels = _labels(recording, columns, plan)
    answered = np.flatnonzero(recording.answers > 0)
    queries, served = columns.take(answered), recording.features[answered]
    positions = Positions(recording.event_positions[answered], recording.outcome_positions[answered])
    left_out = np.repeat(recording.defaulted[answered, None], plan.width, axis=1)
    recomputed = recompute_at(plan, queries, positions, history, labels)
    now = compare_vectors(plan.pipeline, served, recomputed, left_out=left_out)
    later = compare_vectors(plan.pipeline, served, recompute_at(plan, queries, Positions(), history, labels))
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(answered))[:YARDSTICK_ROWS])
    by_definition = compare_vectors(
        plan.pipeline,
        served[chosen],
        recompute(plan, queries.take(chosen), _of(positions, chosen), history, labels),
        left_out=left_out[chosen],
    )
    different = np.union1d(now.different, chosen[by_definition.different])
    largest = max(now.max_abs_error, by_definition.max_abs_error)
    return Parity(len(answered), len(different), len(later.different), largest)


def _of(positions: Positions, rows: npt.NDArray[np.intp]) -> Positions:
    assert positions.events is not None
    assert positions.outcomes is not None
    return Positions(positions.events[rows], positions.outcomes[rows])


def _labels(recording: Recording, columns: EventColumns, plan: FeaturePlan) -> LabelHistory:
    rows: npt.NDArray[np.intp] = np.flatnonzero((recording.outcome.offset >= 0) & ~recording.expired)
    positions = rows.tolist()
    return LabelHistory(
        [columns.ids[row] for row in positions],
        [[columns.texts[field][row] for row in positions] for field in plan.pipeline.entity_fields],
        columns.times[rows],
        recording.label_time_us[rows],
        recording.label[rows],
        np.full(len(rows), np.nan),
        recording.outcome.partition[rows],
        recording.outcome.offset[rows],
    )
