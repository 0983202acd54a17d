"""What River's estimators keep in their state is restored, whichever they are."""

from __future__ import annotations

from typing import Any

import pytest
from river import (
    compose,
    drift,
    ensemble,
    feature_extraction,
    imblearn,
    linear_model,
    naive_bayes,
    optim,
    preprocessing,
    tree,
)

from headrace.learner.errors import UnsupportedRecipeError
from headrace.learner.recipes import declared
from headrace.pipeline import Model
from tests.unit.learner.river_models import NAMES, rows


def scaled() -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.05))


def scaled_values() -> Any:
    return preprocessing.StandardScaler() | linear_model.LinearRegression(optim.SGD(0.01))


@pytest.mark.parametrize(
    "build",
    [
        lambda: (
            (
                (compose.Select(*NAMES) | preprocessing.StandardScaler())
                + (compose.Discard("night") | preprocessing.MinMaxScaler())
            )
            | linear_model.LogisticRegression(optim.SGD(0.05))
        ),
        lambda: feature_extraction.RBFSampler(seed=3) | linear_model.LogisticRegression(),
        linear_model.SoftmaxRegression,
        lambda: ensemble.VotingClassifier([scaled(), naive_bayes.GaussianNB()]),
        lambda: imblearn.RandomUnderSampler(scaled(), {False: 0.5, True: 0.5}, seed=3),
        lambda: preprocessing.TargetStandardScaler(scaled_values()),
        lambda: tree.HoeffdingTreeClassifier(
            grace_period=50, leaf_prediction="mc", splitter=tree.splitter.HistogramSplitter()
        ),
        lambda: tree.HoeffdingAdaptiveTreeRegressor(grace_period=50, seed=3),
        lambda: drift.DriftRetrainingClassifier(scaled(), drift.binary.DDM()),
    ],
    ids=["select", "rbf", "softmax", "voting", "sampler", "target", "histogram", "adaptive", "retraining"],
)
def test_what_estimators_keep_in_their_state_is_restored(build: Any) -> None:
    values, labels, _ = rows(300)
    whole, first, second = (declared(Model("one", build), NAMES) for _ in range(3))
    scores = whole.learn(values, labels, NAMES)
    first.learn(values[:170], labels[:170], NAMES)
    second.restore(first.state())
    assert second.learn(values[170:], labels[170:], NAMES).tolist() == scores[170:].tolist()
    assert second.comparable(second.state()) == whole.comparable(whole.state())


def test_what_cannot_answer_untrained_is_refused() -> None:
    with pytest.raises(UnsupportedRecipeError, match="no answer before it has learned: River fails with TypeError"):
        declared(Model("one", lambda: preprocessing.MinMaxScaler(window_size=9) | scaled_values()), NAMES)
