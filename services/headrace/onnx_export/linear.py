"""Linear models: a weighted sum in the order in which River adds it, and a link."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from river import linear_model, optim

from headrace.onnx_export.conversion import constant_shares, estimator, only, shares_of
from headrace.onnx_export.graph import Columns, Graph

# Beyond it River's sigmoid is 0 or 1.
_SIGMOID_LIMIT = 30.0


@estimator(linear_model.LogisticRegression, linear_model.LinearRegression, linear_model.Perceptron)
def generalized_linear_model(model: Any, columns: Columns, graph: Graph) -> str:
    """link(x · w + b), whatever the optimizer and the penalty: they matter for learning only."""
    # A feature without a weight counts with weight 0, whatever the initializer: it draws one in learning only.
    weights = dict.fromkeys(columns.names, 0.0) | model.weights
    raw = weighted_sum(graph, columns, weights, columns.names)
    raw = graph.node("Add", raw, graph.double(float(model.intercept)))
    # A loss takes its link from its parent unless it has its own; one that a user wrote may have any.
    link = type(model.loss).mean_func
    if link is optim.losses.BinaryLoss.mean_func:
        return sigmoid(graph, raw)
    if link is optim.losses.Poisson.mean_func:
        return graph.node("Exp", raw)
    only(
        link is optim.losses.RegressionLoss.mean_func,
        f"{type(model).__name__}(loss={type(model.loss).__name__}): only River's own losses have an ONNX form",
    )
    return raw


@estimator(linear_model.BayesianLinearRegression)
def bayesian_linear_regression(model: Any, columns: Columns, graph: Graph) -> str:
    """x · the mean of the weights."""
    if not model._idx:
        return graph.repeated(0.0, columns.tensor)
    model._ensure_m()
    means = {name: float(model._m_arr[i]) for name, i in model._idx.items()}
    return weighted_sum(graph, columns, means, columns.names)


@estimator(linear_model.PARegressor)
def passive_aggressive_regressor(model: Any, columns: Columns, graph: Graph) -> str:
    """x · w + b."""
    return graph.node("Add", _dot(graph, columns, model.weights), graph.double(float(model.intercept)))


@estimator(linear_model.PAClassifier)
def passive_aggressive_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """sigmoid(x · w + b)."""
    return sigmoid(graph, passive_aggressive_regressor(model, columns, graph))


@estimator(linear_model.ALMAClassifier)
def alma_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """sigmoid(x · w)."""
    return sigmoid(graph, _dot(graph, columns, model.w))


@shares_of(linear_model.SoftmaxRegression)
def softmax_regression(model: Any, columns: Columns, graph: Graph) -> str:
    """exp(x · w_c) over the sum of those of the classes that were seen."""
    for label in model.weights:
        only(label in (False, True), f"SoftmaxRegression: the class {label!r} is neither True nor False")
    raw = {bool(label): _dot(graph, columns, weights, swapped=True) for label, weights in model.weights.items()}
    if len(raw) < 2:
        return constant_shares((float(False in raw), float(True in raw)), columns, graph)
    largest = graph.node("Max", *raw.values())
    powers = {label: graph.node("Exp", graph.node("Sub", tensor, largest)) for label, tensor in raw.items()}
    total = graph.sum_in_order(list(powers.values()))
    return graph.node("Div", graph.join([powers[False], powers[True]]), total)


def weighted_sum(graph: Graph, columns: Columns, weights: Mapping[Any, float], order: tuple[Any, ...]) -> str:
    """Σ x · w over the names in `order` that have a column and a weight, from left to right: float64 [N, 1]."""
    at = {name: i for i, name in enumerate(columns.names)}
    used = [name for name in order if name in at and name in weights]
    if not used:
        return graph.repeated(0.0, columns.tensor)
    tensor = columns.tensor
    if [at[name] for name in used] != list(range(len(columns.names))):
        tensor = graph.node("Gather", tensor, graph.integers(*(at[name] for name in used)), axis=1)
    terms = graph.node("Mul", tensor, graph.double(np.array([[float(weights[name]) for name in used]])))
    return graph.row_sum(terms, len(used))


def sigmoid(graph: Graph, logit: str) -> str:
    """1 / (1 + exp(−logit)), and 0 or 1 beyond ±30, as River has it."""
    probability = graph.node("Sigmoid", logit)
    low = graph.node("Less", logit, graph.double(-_SIGMOID_LIMIT))
    high = graph.node("Greater", logit, graph.double(_SIGMOID_LIMIT))
    probability = graph.node("Where", low, graph.double(0.0), probability)
    return graph.node("Where", high, graph.double(1.0), probability)


def _dot(graph: Graph, columns: Columns, weights: Mapping[Any, float], *, swapped: bool = False) -> str:
    """River's dot product of two dicts (x, weights), or (weights, x) when swapped: it goes through the shorter one,
    and through the second when they are equal.
    """
    row, learned = len(columns.names), len(weights)
    through_row = row <= learned if swapped else row < learned
    return weighted_sum(graph, columns, weights, columns.names if through_row else tuple(weights))
