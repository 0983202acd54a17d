"""Wrappers that matter for learning, for which model answers, or for the scale of the answer."""

from __future__ import annotations

import math
from typing import Any

from river import drift, imblearn, model_selection, preprocessing

from headrace.onnx_export.conversion import convert, estimator, shares, shares_of
from headrace.onnx_export.graph import Columns, Graph


@shares_of(
    imblearn.RandomUnderSampler,
    imblearn.RandomOverSampler,
    imblearn.RandomSampler,
    imblearn.HardSamplingClassifier,
    drift.DriftRetrainingClassifier,
)
def wrapped_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """The wrapped model: sampling and retraining happen in learning."""
    return shares(model._wrapped_model, columns, graph)


@estimator(imblearn.HardSamplingRegressor, imblearn.ChebyshevUnderSampler, imblearn.ChebyshevOverSampler)
def wrapped_regressor(model: Any, columns: Columns, graph: Graph) -> str:
    """The wrapped model: sampling happens in learning."""
    return convert(model._wrapped_model, columns, graph)


@shares_of(model_selection.SuccessiveHalvingClassifier, model_selection.BanditClassifier)
def selected_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """The model that is best at this moment."""
    return shares(_best(model), columns, graph)


@estimator(model_selection.GreedyRegressor, model_selection.SuccessiveHalvingRegressor, model_selection.BanditRegressor)
def selected_regressor(model: Any, columns: Columns, graph: Graph) -> str:
    """The model that is best at this moment."""
    return convert(_best(model), columns, graph)


@estimator(preprocessing.PredClipper)
def pred_clipper(model: Any, columns: Columns, graph: Graph) -> str:
    """The value, kept between two bounds."""
    value = convert(model.regressor, columns, graph)
    value = graph.node("Min", value, graph.double(float(model.y_max)))
    return graph.node("Max", value, graph.double(float(model.y_min)))


@estimator(preprocessing.TargetStandardScaler)
def target_standard_scaler(model: Any, columns: Columns, graph: Graph) -> str:
    """The value times the deviation of the target plus its mean."""
    value = convert(model.regressor, columns, graph)
    scaled = graph.node("Mul", value, graph.double(float(model.var.get() ** 0.5)))
    return graph.node("Add", scaled, graph.double(float(model.var.mean.get())))


@estimator(preprocessing.TargetMinMaxScaler)
def target_min_max_scaler(model: Any, columns: Columns, graph: Graph) -> str:
    """The value times the range of the target plus its minimum; as it is before a target was seen."""
    value = convert(model.regressor, columns, graph)
    low, high = model.min.get(), model.max.get()
    if low == math.inf:
        return value
    return graph.node("Add", graph.node("Mul", value, graph.double(float(high - low))), graph.double(float(low)))


def _best(model: Any) -> Any:
    best = model.best_model
    return model.models[0] if best is None else best
