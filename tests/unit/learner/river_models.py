"""River models that the learner takes, and rows for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from river import cluster, ensemble, forest, linear_model, naive_bayes, optim, preprocessing, tree

from headrace.learner.recipes import Recipe, declared
from headrace.pipeline import Model

NAMES = ("amount", "night", "count", "rate")


def _logistic() -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.05))


MODELS: dict[str, Callable[[], Any]] = {
    "logistic regression": _logistic,
    "passive-aggressive": lambda: preprocessing.StandardScaler() | linear_model.PAClassifier(C=0.01, mode=1),
    "ALMA": lambda: preprocessing.StandardScaler() | linear_model.ALMAClassifier(),
    "naive Bayes": naive_bayes.GaussianNB,
    "Hoeffding tree": lambda: tree.HoeffdingTreeClassifier(grace_period=50, max_share_to_split=1.0),
    "adaptive tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(grace_period=50, seed=3),
    "fast tree": lambda: tree.ExtremelyFastDecisionTreeClassifier(grace_period=50, min_samples_reevaluate=100),
    "forest": lambda: forest.ARFClassifier(n_models=10, seed=3, grace_period=50),
    "leveraging bagging": lambda: ensemble.LeveragingBaggingClassifier(_logistic(), n_models=3, seed=3),
    "k-means": lambda: preprocessing.StandardScaler() | cluster.KMeans(n_clusters=3, seed=3),
}

DECLARED: dict[str, Model] = {name: Model(name, build) for name, build in MODELS.items()} | {
    "weighted": Model("weighted", _logistic, class_weights={True: 20}),
    "sampled": Model("sampled", _logistic, negative_sampling=0.2),
    "calibrated": Model("calibrated", _logistic, class_weights={True: 20}, calibration="platt"),
    "reset on drift": Model("reset on drift", _logistic, reset_on_drift=0.05, calibration="platt"),
}


def recipe(name: str) -> Recipe:
    """A fresh recipe of `DECLARED`."""
    return declared(DECLARED[name], NAMES)


def rows(count: int, seed: int = 0) -> tuple[list[list[float]], list[bool], list[str]]:
    """Rows, labels and event ids; halfway the meaning of the first feature turns round."""
    random = np.random.default_rng(seed)
    values = (random.standard_normal((count, len(NAMES))) * [50, 1, 7, 0.01]).astype(np.float32)
    turned = np.where(np.arange(count) < count // 2, 1.0, -1.0)
    labels = turned * values[:, 0] + 10 * random.standard_normal(count) > 30
    return values.tolist(), labels.tolist(), [f"{seed}-{number}" for number in range(count)]
