"""Linear models: a weighted sum in the order River adds it, and a link."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from river import linear_model, optim

from headrace.onnx_export.conversion import estimator, only
from headrace.onnx_export.graph import Columns, Graph

# Beyond it River's sigmoid is 0 or 1.
_SIGMOID_LIMIT = 30.0


@estimator(linear_model.LogisticRegression)
def logistic_regression(model: Any, columns: Columns, graph: Graph) -> str:
    """sigmoid(x · w + b), whatever the optimizer."""
    only(
        type(model.loss) is optim.losses.Log,
        f"LogisticRegression(loss={type(model.loss).__name__}): only optim.losses.Log has an ONNX form",
    )
    return sigmoid(graph, _raw(model, columns, graph))


def _raw(model: Any, columns: Columns, graph: Graph) -> str:
    """x · w + b of River's generalized linear models."""
    product = weighted_sum(graph, columns, model.weights, columns.names)
    return graph.node("Add", product, graph.double(float(model.intercept)))


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
