"""Probabilities of a classifier that learned from a part of the negatives alone."""

from __future__ import annotations

from typing import Any

from river import base


class PriorCorrection(base.Wrapper[Any], base.Classifier):
    """Undoes the shift of the prior that comes from leaving out negatives.

    Where a classifier learned all positives and a share s of the negatives, taken without regard to their features,
    its odds are 1/s times the true odds. So of its probability q the true one is s·q / (1 − q + s·q), exactly.

    Args:
        classifier: learned from the sample.
        negatives: share of the negatives that it learned, above 0 and at most 1.

    Examples:
        >>> from river import linear_model
        >>> model = PriorCorrection(linear_model.LogisticRegression(), negatives=0.25)
        >>> model.predict_proba_one({})[True]
        0.2

    References:
        Dal Pozzolo, Caelen, Johnson, Bontempi, 2015, "Calibrating probability with undersampling for unbalanced
        classification", IEEE Symposium Series on Computational Intelligence.
    """

    def __init__(self, classifier: Any, negatives: float = 1.0) -> None:
        self.classifier = classifier
        self.negatives = negatives

    @property
    def _wrapped_model(self) -> Any:
        return self.classifier

    @property
    def _multiclass(self) -> bool:
        return False

    def learn_one(self, x: Any, y: Any, **options: Any) -> None:
        """Learn one outcome of the sample."""
        self.classifier.learn_one(x, y, **options)

    def predict_proba_one(self, x: Any, **options: Any) -> dict[Any, float]:
        """The corrected probabilities of False and True."""
        given = self.classifier.predict_proba_one(x, **options).get(True, 0.0)
        scaled = self.negatives * given
        probability = scaled / (1.0 - given + scaled)
        return {False: 1.0 - probability, True: probability}
