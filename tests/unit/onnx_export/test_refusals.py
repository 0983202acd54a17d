"""What has no ONNX form is refused by name when it is declared, and when it is exported."""

from __future__ import annotations

from typing import Any

import pytest
from river import (
    base,
    cluster,
    compose,
    dummy,
    ensemble,
    feature_extraction,
    linear_model,
    naive_bayes,
    neighbors,
    optim,
    preprocessing,
)

from headrace.onnx_export import SUPPORTED, UnsupportedModelError, check, export
from tests.unit.onnx_export.every_model import CASES

NAMES = ("amount", "code")
LOGISTIC = linear_model.LogisticRegression


class OwnLoss(optim.losses.Log):
    """A loss with a link of its own."""

    def mean_func(self, y_pred: Any) -> Any:
        return y_pred


class OwnScaler(preprocessing.StandardScaler):
    """A subclass may do anything."""


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (neighbors.KNNClassifier(), "KNNClassifier has no ONNX form; supported are"),
        (naive_bayes.BernoulliNB(), "BernoulliNB has no"),
        (preprocessing.FeatureHasher() | LOGISTIC(), "FeatureHasher has no"),
        (compose.FuncTransformer(dict) | LOGISTIC(), "FuncTransformer has no"),
        (OwnScaler() | LOGISTIC(), "OwnScaler has no"),
        (compose.Select("amount") + feature_extraction.TFIDF() | LOGISTIC(), "TFIDF has no"),
        (ensemble.BaggingClassifier(neighbors.KNNClassifier(), n_models=2), "KNNClassifier has no"),
        (cluster.DBSTREAM(), "DBSTREAM has no"),
        (preprocessing.StandardScaler(), "StandardScaler has no ONNX form as the last step"),
        (compose.Pipeline(), "an empty pipeline"),
        (preprocessing.StandardScaler(window_size=5) | LOGISTIC(), "StandardScaler.window_size"),
        (LOGISTIC(loss=OwnLoss()), r"LogisticRegression.loss=OwnLoss"),
        (preprocessing.Normalizer(order=3) | LOGISTIC(), "Normalizer.order=3"),
        (preprocessing.Binarizer(dtype=str) | LOGISTIC(), "Binarizer.dtype="),
        (preprocessing.OneHotEncoder(drop_zeros=True) | LOGISTIC(), "OneHotEncoder.drop_zeros"),
        (preprocessing.OneHotEncoder(drop_first=True) | LOGISTIC(), "OneHotEncoder.drop_first"),
        (preprocessing.OneHotEncoder({"amount": {1.0}}) | LOGISTIC(), "OneHotEncoder.categories.*'code' has none"),
        (preprocessing.OneHotEncoder({"amount": {1}, "code": {2.0}}) | LOGISTIC(), "1 of 'amount' must be a float"),
        (preprocessing.OneHotEncoder({"amount": {"a"}, "code": {2.0}}) | LOGISTIC(), "'a' of 'amount' is not a number"),
        (preprocessing.OrdinalEncoder(unknown_value=None) | LOGISTIC(), "OrdinalEncoder.unknown_value=None"),
        (
            compose.Select("amount", "price") | LOGISTIC(),
            r"Select\('price'\): there is no such feature; .* amount, code",
        ),
        (compose.Discard("amount", "code") | LOGISTIC(), "Discard: no feature is left"),
    ],
)
def test_refused_by_name(model: Any, named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        check(model, NAMES)
    with pytest.raises(UnsupportedModelError, match=named):
        export(model, NAMES)


@pytest.mark.parametrize("model", [naive_bayes.GaussianNB(), dummy.PriorClassifier(), linear_model.SoftmaxRegression()])
def test_a_third_class_is_refused(model: Any) -> None:
    for label in (False, True, "maybe"):
        model.learn_one({"amount": 1.0, "code": 2.0}, label)
    with pytest.raises(UnsupportedModelError, match=f"{type(model).__name__}: the class 'maybe' is neither"):
        export(model, NAMES)


def test_zero_and_one_are_false_and_true() -> None:
    model = naive_bayes.GaussianNB()
    for label in (0, 1, 1):
        model.learn_one({"amount": 1.0, "code": 2.0}, label)
    check(model, NAMES)


def test_supported_is_in_order() -> None:
    assert list(SUPPORTED) == sorted(SUPPORTED)
    assert {"Pipeline", "LogisticRegression", "StandardScaler", "KMeans"} <= set(SUPPORTED)


def test_every_supported_class_is_in_the_suite() -> None:
    found: set[str] = set()
    for case in CASES.values():
        _gather(case.make(), found)
    assert set(SUPPORTED) - found == set()


def _gather(part: Any, found: set[str]) -> None:
    """Names of the classes of River, and of ours, that a model is made of."""
    if isinstance(part, list | tuple | set):
        for item in part:
            _gather(item, found)
    elif isinstance(part, dict):
        _gather(list(part.values()), found)
    elif isinstance(part, base.Estimator):
        found.add(type(part).__name__)
        _gather(part.__dict__, found)
