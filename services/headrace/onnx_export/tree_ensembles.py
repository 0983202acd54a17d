"""River's random forests, and random patches of anything.

All trees of a forest are one TreeEnsembleRegressor and one table of leaves. The background trees that River grows
after a warning are not in the file: they answer nothing until one takes the place of its tree, and then it is the tree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from river import ensemble, forest

from headrace.onnx_export.conversion import constant_shares, convert, estimator, shares, shares_of
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


@shares_of(ensemble.SRPClassifier)
def random_patches_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """As a random forest; each member sees its own subset of the features."""
    if not len(model):
        # Refuses what the members will be.
        shares(model.model, columns, Graph())
        return constant_shares((0.0, 0.0), columns, graph)
    weighted = []
    for member in model:
        weight = member.metric.get()
        answer = shares(member.model, _subset(columns, member.features, graph), graph)
        counts = weight > 0.0 and not model.disable_weighted_vote
        weighted.append(graph.node("Mul", answer, graph.double(weight)) if counts else answer)
    added = graph.node("Transpose", graph.sum_in_order(weighted), perm=[1, 0])
    return graph.node("Transpose", voted(added, graph), perm=[1, 0])


@estimator(ensemble.SRPRegressor)
def random_patches_regressor(model: Any, columns: Columns, graph: Graph) -> str:
    """The mean or the median of members that each see their own subset of the features."""
    if not len(model):
        convert(model.model, columns, Graph())
        return graph.repeated(0.0, columns.tensor)
    answers = [convert(member.model, _subset(columns, member.features, graph), graph) for member in model]
    if model.aggregation_method == "median":
        each = graph.node("Transpose", graph.join(answers), perm=[1, 0])
        return graph.node("Reshape", median(each, len(answers), graph), graph.integers(-1, 1))
    weights = np.ones(len(answers))
    if not model.disable_weighted_vote:
        weights = np.maximum(np.array([member.metric.get() for member in model], np.float64), 0.0)
        if not model.metric.bigger_is_better:
            weights = weights.max() - weights
    if not weights.sum():
        return graph.repeated(0.0, columns.tensor)
    terms = [graph.node("Mul", a, graph.double(w)) for a, w in zip(answers, weights.tolist(), strict=True)]
    return graph.node("Div", graph.sum_in_order(terms), graph.double(float(weights.sum())))


def _subset(columns: Columns, features: list[Any] | None, graph: Graph) -> Columns:
    """The columns that a member sees, in its order."""
    if features is None:
        return columns
    index = {name: i for i, name in enumerate(columns.names)}
    names = tuple(name for name in features if name in index)
    chosen = graph.node("Gather", columns.tensor, graph.integers(*(index[name] for name in names)), axis=1)
    return Columns(chosen, names)


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
