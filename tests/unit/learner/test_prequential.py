"""Prequential metrics agree with scikit-learn's over the same outcomes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics

from headrace.learner.errors import SnapshotError
from headrace.learner.prequential import PrequentialMetrics


def outcomes(count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    scores = np.round(random.random(count), 2).clip(0.01, 0.99)  # with ties
    return scores, random.random(count) < scores


def test_values() -> None:
    scores, labels = outcomes(900)
    found = PrequentialMetrics(window=400)
    for start in range(0, 900, 70):
        found.add(scores[start : start + 70], labels[start : start + 70])
    values = found.values()
    assert values["log_loss"] == pytest.approx(metrics.log_loss(labels, scores))
    assert values["positive_rate"] == pytest.approx(labels.mean())
    newest, truth = scores[-400:], labels[-400:]
    assert values["rolling_count"] == 400
    assert values["rolling_log_loss"] == pytest.approx(metrics.log_loss(truth, newest))
    assert values["rolling_auc"] == pytest.approx(metrics.roc_auc_score(truth, newest))
    assert values["rolling_average_precision"] == pytest.approx(metrics.average_precision_score(truth, newest))


def test_what_is_undefined_is_absent() -> None:
    found = PrequentialMetrics()
    assert found.values() == {}
    found.add(np.array([0.2, 0.3]), np.array([False, False]))
    assert "rolling_auc" not in found.values()


def test_certain_and_wrong_is_finite() -> None:
    found = PrequentialMetrics()
    found.add(np.array([0.0]), np.array([True]))
    assert np.isfinite(found.values()["log_loss"])


def test_restored_metrics_go_on_to_the_bit() -> None:
    scores, labels = outcomes(300)
    whole, first, second = PrequentialMetrics(100), PrequentialMetrics(100), PrequentialMetrics(100)
    for part in (slice(0, 130), slice(130, 300)):
        whole.add(scores[part], labels[part])
    first.add(scores[:130], labels[:130])
    second.restore(json.loads(json.dumps(first.state())))
    second.add(scores[130:], labels[130:])
    assert second.values() == whole.values()
    assert second.state() == whole.state()


def test_damaged_state_is_refused() -> None:
    with pytest.raises(SnapshotError):
        PrequentialMetrics().restore({"count": 1})


def test_values_and_clusters_have_other_losses() -> None:
    values, clusters = PrequentialMetrics(kind="value"), PrequentialMetrics(kind="cluster")
    scores, labels = np.array([0.5, 3.0, -1.0]), np.array([True, False, False])
    for found in (values, clusters):
        found.add(scores, labels)
    assert values.values()["mean_absolute_error"] == pytest.approx(4.5 / 3)
    assert values.values()["rolling_mean_absolute_error"] == pytest.approx(4.5 / 3)
    assert "log_loss" not in values.values()
    assert clusters.values() == {}
