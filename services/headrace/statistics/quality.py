"""Quality of scores on labelled rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

SCORE_MARGIN = 1e-6
"""Scores are kept this far from 0 and 1 for the log loss, so that one certain and wrong answer is finite (13.8)."""


@dataclass(frozen=True)
class Quality:
    """Measures over some labelled rows. None where a measure is not defined, as the AUC of one class.

    Attributes:
        rows: how many.
        base_rate: share of positives.
        auc: area under the ROC curve; ties count half.
        average_precision: sum of precision times gain of recall over the distinct scores, highest first.
        log_loss: mean of -ln of the probability given to what was true.
    """

    rows: int
    base_rate: float | None
    auc: float | None
    average_precision: float | None
    log_loss: float | None


def quality(positive: BoolArray, score: FloatArray) -> Quality:
    """Measures of `score` (n,), probabilities in 0 to 1, against `positive` (n,).

    Rows whose score is not finite are left out.
    """
    known = np.isfinite(score)
    positive, score = positive[known], score[known]
    rows, positives = len(score), int(positive.sum())
    if not rows:
        return Quality(0, None, None, None, None)
    order = np.argsort(-score, kind="stable")
    # Rows up to the last of each run of equal scores.
    ends = np.append(np.nonzero(np.diff(score[order]))[0], rows - 1)
    hits = np.cumsum(positive[order])[ends].astype(np.float64)
    misses = ends + 1 - hits
    gained = np.diff(hits, prepend=0.0)
    auc = None
    if 0 < positives < rows:
        passed_over = np.diff(misses, prepend=0.0)
        area = float((passed_over * (hits - gained / 2)).sum())
        auc = area / (positives * (rows - positives))
    average_precision = float((gained * hits / (ends + 1)).sum()) / positives if positives else None
    return Quality(rows, positives / rows, auc, average_precision, float(log_losses(positive, score).mean()))


def log_losses(positive: BoolArray, score: FloatArray) -> FloatArray:
    """Log loss of each row, in nats.

    Parameters
    ----------
    positive, score
        Label and probability of the positive class, (n,).
    """
    kept = np.clip(score, SCORE_MARGIN, 1 - SCORE_MARGIN)
    result: FloatArray = -np.log(np.where(positive, kept, 1 - kept))
    return result
