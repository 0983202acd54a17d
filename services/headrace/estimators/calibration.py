"""Calibrated probabilities, learned online."""

from __future__ import annotations

import math
from typing import Any

from river import base

SMALLEST = 1e-9


class PlattScaling(base.Wrapper[Any], base.Classifier):
    """Platt scaling: the probability is sigmoid(slope · logit(p) + intercept) of what the classifier says.

    Slope and intercept are learned from each outcome by stochastic gradient descent on the log loss, before the
    classifier learns it: they see what the classifier said of an outcome that it did not know. They begin at 1 and 0,
    which change nothing.

    Args:
        classifier: gives the probability of True that is calibrated.
        lr: learning rate.

    Examples:
        >>> from river import linear_model
        >>> model = PlattScaling(linear_model.LogisticRegression())
        >>> model.learn_one({"amount": 2.0}, True)
        >>> round(model.predict_proba_one({"amount": 2.0})[True], 4)
        0.5075

    References:
        Platt, 1999, "Probabilistic outputs for support vector machines", Advances in large margin classifiers.
    """

    def __init__(self, classifier: Any, lr: float = 0.01) -> None:
        self.classifier = classifier
        self.lr = lr
        self.slope = 1.0
        self.intercept = 0.0

    @property
    def _wrapped_model(self) -> Any:
        return self.classifier

    @property
    def _multiclass(self) -> bool:
        return False

    def calibrated(self, probability: float) -> float:
        """The calibrated probability for one that the classifier gave."""
        return _sigmoid(self.slope * _logit(probability) + self.intercept)

    def calibrate_one(self, probability: float, y: bool) -> None:
        """Learn slope and intercept from what the classifier said of an outcome, without the classifier."""
        logit = _logit(probability)
        step = self.lr * (_sigmoid(self.slope * logit + self.intercept) - float(y))
        self.slope -= step * logit
        self.intercept -= step

    def learn_one(self, x: Any, y: Any, **options: Any) -> None:
        """Learn one outcome."""
        self.calibrate_one(self.classifier.predict_proba_one(x).get(True, 0.0), y)
        self.classifier.learn_one(x, y, **options)

    def predict_proba_one(self, x: Any, **options: Any) -> dict[Any, float]:
        """The calibrated probabilities of False and True."""
        probability = self.calibrated(self.classifier.predict_proba_one(x, **options).get(True, 0.0))
        return {False: 1.0 - probability, True: probability}


def _logit(probability: float) -> float:
    inside = min(max(probability, SMALLEST), 1.0 - SMALLEST)
    return math.log(inside / (1.0 - inside))


def _sigmoid(value: float) -> float:
    # Written so that exp cannot overflow.
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1.0 + grown)
