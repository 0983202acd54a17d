"""River's random forests and random patches.

All trees of a forest are one TreeEnsembleRegressor and one table of leaves. The background trees that River grows
after a warning are not in the file: they answer nothing until one takes the place of its tree, and then it is the tree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from river import forest

from headrace.onnx_export.conversion import constant_shares, estimator, shares_of
from headrace.onnx_export.graph import Columns, Graph
from headrace.onnx_export.trees import by_row, check_classifier, check_regressor, tree_shares, tree_values
from headrace.onnx_export.trees_shares import layers


@shares_of(forest.ARFClassifier)
def adaptive_random_forest_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """The sum of what the trees give, each weighted by its metric, over the sum of both classes."""
    check_classifier(model, type(model).__name__)
    if not len(model):
        return constant_shares((0.0, 0.0), columns, graph)
    each = tree_shares(list(model), columns, graph)
    weights = [metric.get() for metric in model._metrics]
    weights = [weight if weight > 0.0 and not model.disable_weighted_vote else 1.0 for weight in weights]
    weighted = graph.node("Mul", each, graph.double(np.array(weights, np.float64).reshape(1, -1, 1)))
    parts = (weighted,) if len(weights) == 1 else graph.node("Split", weighted, outputs=len(weights), axis=1)
    return by_row(voted(graph.node("Reshape", graph.sum_in_order(parts), graph.integers(2, -1)), graph), graph)


@estimator(forest.ARFRegressor)
def adaptive_random_forest_regressor(model: Any, columns: Columns, graph: Graph) -> str:
    """The mean or the median of the trees."""
    check_regressor(model, type(model).__name__)
    if not len(model):
        return graph.repeated(0.0, columns.tensor)
    each = tree_values(list(model), columns, graph)
    value = _mean(model, each, graph) if model.aggregation_method == "mean" else median(each, len(model), graph)
    return graph.node("Reshape", value, graph.integers(-1, 1))


def voted(shares: str, graph: Graph) -> str:
    """[2, N] over its sum; left alone where that is not positive."""
    total = graph.node("ReduceSum", shares, graph.integers(0), keepdims=1)
    some = graph.node("Greater", total, graph.double(0.0))
    return graph.node("Div", shares, graph.node("Where", some, total, graph.double(1.0)))


def median(each: str, count: int, graph: Graph) -> str:
    """Of [count, N] by column: [1, N]."""
    half = count // 2
    ascending, _ = graph.node("TopK", each, graph.integers(half + 1), outputs=2, axis=0, largest=0)
    middle = graph.node("Slice", ascending, graph.integers(half), graph.integers(half + 1), graph.integers(0))
    if count % 2:
        return middle
    below = graph.node("Slice", ascending, graph.integers(half - 1), graph.integers(half), graph.integers(0))
    return graph.node("Div", graph.node("Add", below, middle), graph.double(2.0))


def _mean(model: Any, each: str, graph: Graph) -> str:
    weights = np.array([metric.get() for metric in model._metrics], np.float64)
    if not model.disable_weighted_vote and weights.sum() != 0:
        # River weights each tree by the error of the others, and divides by the number of trees all the same.
        weights = weights.sum() - weights
        with np.errstate(invalid="ignore"):
            weights /= weights.sum()
        each = graph.node("Mul", each, graph.double(weights.reshape(-1, 1)))
    total = graph.sum_in_order(layers(each, len(model), graph))
    return graph.node("Div", total, graph.double(float(len(model))))
