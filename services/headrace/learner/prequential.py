"""Quality of the model on outcomes that it had not learned yet.

Each outcome is scored by the model just before it is learned (prequential, or test-then-train, evaluation; Gama,
Sebastião, Rodrigues, 2013, "On evaluating stream learning algorithms", Machine Learning 90).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headrace.learner.errors import SnapshotError

_SMALLEST = 1e-15

ScoreKind = Literal["probability", "value", "cluster"]
Labels = NDArray[np.bool_] | NDArray[np.float64]


class PrequentialMetrics:
    """Loss since the beginning, and loss and ranking quality over the newest outcomes.

    Args:
        window: how many of the newest outcomes the rolling metrics cover.
        kind: what the scores are. Of probabilities the loss is the log loss, of values the absolute error, beside the
            root of the mean squared error; the number of a cluster is neither right nor wrong, so nothing is kept of
            it.
    """

    def __init__(self, window: int = 2000, kind: ScoreKind = "probability") -> None:
        self._window = window
        self._kind = kind
        self._count = 0
        self._loss = 0.0
        self._squares = 0.0
        self._positives = 0
        self._scores = np.empty(0, np.float64)
        self._labels: Labels = np.empty(0, np.float64 if kind == "value" else np.bool_)

    def add(self, scores: NDArray[np.float64], labels: Labels) -> None:
        """Take outcomes in the order they were learned.

        Args:
            scores: float64 [n], what the model said before the label was learned.
            labels: bool or float64 [n].
        """
        if self._kind == "cluster" or not len(scores):
            return
        self._count += len(scores)
        self._loss += float(self._losses(scores, labels).sum())
        if self._kind == "value":
            self._squares += float(((scores - labels) ** 2).sum())
        else:
            self._positives += int(labels.sum())
        self._scores = np.concatenate([self._scores, scores])[-self._window :]
        self._labels = np.concatenate([self._labels, labels])[-self._window :]

    def values(self) -> dict[str, float]:
        """The metrics by name; one that is undefined (no outcome, or one class alone) is absent."""
        if not self._count:
            return {}
        if self._kind == "value":
            errors = self._scores - self._labels
            return {
                "mean_absolute_error": self._loss / self._count,
                "root_mean_squared_error": math.sqrt(self._squares / self._count),
                "rolling_mean_absolute_error": float(np.abs(errors).mean()),
                "rolling_root_mean_squared_error": math.sqrt(float((errors**2).mean())),
                "rolling_count": float(len(self._scores)),
            }
        values = {
            "log_loss": self._loss / self._count,
            "positive_rate": self._positives / self._count,
            "rolling_log_loss": float(self._losses(self._scores, self._labels).mean()),
            "rolling_count": float(len(self._scores)),
        }
        if 0 < int(self._labels.sum()) < len(self._labels):
            values["rolling_auc"] = _auc(self._scores, self._labels)
            values["rolling_average_precision"] = _average_precision(self._scores, self._labels)
        return values

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, as JSON values."""
        return {
            "count": self._count,
            "loss": self._loss,
            "squares": self._squares,
            "positives": self._positives,
            "scores": base64.b64encode(self._scores.astype("<f8").tobytes()).decode(),
            "labels": base64.b64encode(self._labels.astype(self._stored).tobytes()).decode(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken.

        Raises:
            SnapshotError: the state is damaged.
        """
        try:
            self._count, self._positives = int(state["count"]), int(state["positives"])
            self._loss, self._squares = float(state["loss"]), float(state.get("squares", 0.0))
            self._scores = np.frombuffer(base64.b64decode(state["scores"]), "<f8").astype(np.float64)
            labels = np.frombuffer(base64.b64decode(state["labels"]), self._stored)
            self._labels = labels.astype(np.float64) if self._kind == "value" else labels.astype(np.bool_)
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotError(f"the metrics in the snapshot are damaged: {error!r}") from error

    @property
    def _stored(self) -> str:
        return "<f8" if self._kind == "value" else "u1"

    def _losses(self, scores: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
        if self._kind == "value":
            return np.asarray(np.abs(scores - labels))
        return _log_loss(scores, labels)


def _log_loss(scores: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    of_the_truth = np.where(labels, scores, 1.0 - scores)
    return np.asarray(-np.log(np.clip(of_the_truth, _SMALLEST, 1.0)))


def _auc(scores: NDArray[np.float64], labels: Labels) -> float:
    """Area under the ROC curve: the share of pairs that are ranked right, ties counting half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    positives = int(labels.sum())
    ranks = float(mean_rank[inverse][labels].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))


def _average_precision(scores: NDArray[np.float64], labels: Labels) -> float:
    """Precision at each distinct score, weighted by the recall gained there."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(labels[order])
    last_of_ties = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    gained = np.diff(hits[last_of_ties], prepend=0)
    return float((gained * hits[last_of_ties] / (last_of_ties + 1)).sum() / hits[-1])
