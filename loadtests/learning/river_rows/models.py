"""The models of River's benchmark page, composed as in its `benchmarks/config.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from river import dummy, ensemble, forest, linear_model, naive_bayes, optim, preprocessing, tree

from headrace.estimators import ConstantScaler

MODELS: dict[str, Callable[[], Any]] = {
    "Logistic regression": lambda: (
        preprocessing.StandardScaler() | linear_model.LogisticRegression(optimizer=optim.SGD(0.005))
    ),
    "ALMA": lambda: preprocessing.StandardScaler() | linear_model.ALMAClassifier(),
    "Naive Bayes": naive_bayes.GaussianNB,
    "Hoeffding Tree": tree.HoeffdingTreeClassifier,
    "Hoeffding Adaptive Tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(seed=42),
    "[baseline] Last Class": dummy.NoChangeClassifier,
    "Adaptive Random Forest": lambda: forest.ARFClassifier(seed=42),
    "Aggregated Mondrian Forest": lambda: forest.AMFClassifier(seed=42),
    "Leveraging Bagging": lambda: ensemble.LeveragingBaggingClassifier(tree.HoeffdingTreeClassifier(), seed=42),
}


def build(name: str, parts: float = 1.0) -> Any:
    """A model of the page.

    Args:
        name: of `MODELS`.
        parts: what its features are divided by first; 1 leaves them as they are.
    """
    model = MODELS[name]()
    return model if parts == 1.0 else ConstantScaler(parts) | model
