"""Compares what was served with its recomputation from the topics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.demo.recording import Recording
from headrace.pipeline import EventColumns
from headrace.pipeline.recompute import EventHistory, LabelHistory, Positions, recompute
from headrace.pipeline.state import FeaturePlan


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
    compared = ~recording.defaulted[answered]
    error = np.abs(served - recompute(plan, queries, positions, history, labels))
    stale = (served != recompute(plan, queries, Positions(), history, labels)).any(axis=1)
    different = compared & ~(error == 0).all(axis=1)
    return Parity(
        len(answered),
        int(different.sum()),
        int(stale.sum()),
        float(np.nanmax(error[compared], initial=0.0)) if compared.any() else 0.0,
    )


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
