"""River's classification and regression trees.

A graph finds the leaf of a row (`trees_routing`) and looks up what that leaf says (`trees_shares`, `trees_values`).
Only the tree that answers is there: what River keeps besides to replace it, such as the background trees of a forest,
answers nothing yet. Alternate trees of the adaptive trees do answer, as in River.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from river import tree

from headrace.onnx_export.conversion import binary_shares, estimator, shares_of, shares_of_several
from headrace.onnx_export.graph import Columns, Graph
from headrace.onnx_export.trees_routing import Inputs, leaf_numbers, routes
from headrace.onnx_export.trees_shares import Answer, ShareTables, answer, check_splitter, layers
from headrace.onnx_export.trees_values import Prediction, ValueTables, check_leaf_model, prediction

_NOTHING = Answer({}, None, 0.0)


@shares_of(tree.HoeffdingTreeClassifier, tree.ExtremelyFastDecisionTreeClassifier)
def hoeffding_tree_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """The shares that the leaf gives."""
    check_classifier(model, type(model).__name__)
    return by_row(tree_shares([model], columns, graph), graph)


@shares_of_several(tree.HoeffdingTreeClassifier, tree.ExtremelyFastDecisionTreeClassifier)
def hoeffding_tree_classifiers(models: Sequence[Any], columns: Columns, graph: Graph) -> Sequence[str]:
    """The members of an ensemble, in one pass over all their leaves."""
    for model in models:
        check_classifier(model, type(model).__name__)
    # [2, trees, N] → [N, trees, 2]
    by_tree = graph.node("Transpose", tree_shares(models, columns, graph), perm=[2, 1, 0])
    flat = graph.node("Reshape", by_tree, graph.integers(-1, 2 * len(models)))
    return (flat,) if len(models) == 1 else graph.node("Split", flat, outputs=len(models), axis=1)


@shares_of(tree.HoeffdingAdaptiveTreeClassifier)
def hoeffding_adaptive_tree_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """The leaf and the alternate trees on the way to it, weighted by their errors."""
    check_classifier(model, type(model).__name__)
    binary_shares(dict.fromkeys(model.classes, 0.0), type(model).__name__)
    if model._root is None:
        return by_row(tree_shares([model], columns, graph), graph)
    inputs = Inputs(columns.names)
    found = routes(model._root, inputs)
    answers, members = _distinct(found.ends)
    tables = ShareTables([answer(leaf, model) for leaf in answers] + [_NOTHING], columns)
    rows = _group_rows(leaf_numbers([found], inputs.tensor(columns, graph), graph), tables.numbers, members, graph)
    each = tables.shares(rows, members.shape[1], graph)
    added = graph.sum_in_order(_groups(each, members.shape[1], graph))
    shares = graph.node("Reshape", added, graph.integers(2, -1))
    return by_row(normalised(shares, graph), graph)


@estimator(tree.HoeffdingTreeRegressor)
def hoeffding_tree_regressor(model: Any, columns: Columns, graph: Graph) -> str:
    """The mean or the linear model of the leaf."""
    check_regressor(model, type(model).__name__)
    return graph.node("Reshape", tree_values([model], columns, graph), graph.integers(-1, 1))


@estimator(tree.HoeffdingAdaptiveTreeRegressor)
def hoeffding_adaptive_tree_regressor(model: Any, columns: Columns, graph: Graph) -> str:
    """The mean of the leaf and the alternate trees on the way to it."""
    check_regressor(model, type(model).__name__)
    if model._root is None:
        return graph.node("Reshape", tree_values([model], columns, graph), graph.integers(-1, 1))
    inputs = Inputs(columns.names)
    found = routes(model._root, inputs)
    leaves, members = _distinct(found.ends)
    tables = ValueTables([prediction(leaf) for leaf in leaves] + [Prediction(0.0, None)], columns)
    numbers = leaf_numbers([found], inputs.tensor(columns, graph), graph)
    rows = _group_rows(numbers, tables.numbers, members, graph)
    each = tables.values(rows, members.shape[1], graph)
    added = graph.sum_in_order(layers(each, members.shape[1], graph))
    counts = graph.double([float(len(end)) for end in found.ends])
    count = graph.node("Gather", counts, graph.node("Reshape", numbers, graph.integers(1, -1)), axis=0)
    return graph.node("Reshape", graph.node("Div", added, count), graph.integers(-1, 1))


@shares_of(tree.SGTClassifier)
def stochastic_gradient_tree_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """The sigmoid of the leaf's prediction."""
    true = graph.node("Reshape", _gradient_tree(model, columns, graph), graph.integers(-1, 1))
    return graph.join([graph.node("Sub", graph.double(1.0), true), true])


@estimator(tree.SGTRegressor)
def stochastic_gradient_tree_regressor(model: Any, columns: Columns, graph: Graph) -> str:
    """The leaf's prediction."""
    return graph.node("Reshape", _gradient_tree(model, columns, graph), graph.integers(-1, 1))


def tree_shares(trees: Sequence[Any], columns: Columns, graph: Graph) -> str:
    """What some Hoeffding trees without alternate trees give.

    Args:
        trees: at least one; untrained ones name no class.
        columns: their features.
        graph: gets the nodes.

    Returns:
        Name of a float64 tensor [2, trees, N]: shares of False and True.
    """
    inputs = Inputs(columns.names)
    ways, answers = [], []
    for one in trees:
        binary_shares(dict.fromkeys(one.classes, 0.0), type(one).__name__)
        found = routes(_Nothing() if one._root is None else one._root, inputs)
        ways.append(found)
        answers += [_NOTHING if one._root is None else answer(leaf, one) for (leaf,) in found.ends]
    tables = ShareTables(answers, columns)
    numbers = leaf_numbers(ways, inputs.tensor(columns, graph), graph, tables.numbers)
    return tables.shares(graph.node("Transpose", numbers, perm=[1, 0]), len(trees), graph)


def tree_values(trees: Sequence[Any], columns: Columns, graph: Graph) -> str:
    """As `tree_shares`, for regression trees: float64 [trees, N]; untrained ones give 0."""
    inputs = Inputs(columns.names)
    ways, predictions = [], []
    for one in trees:
        found = routes(_Nothing() if one._root is None else one._root, inputs)
        ways.append(found)
        predictions += [Prediction(0.0, None) if one._root is None else prediction(leaf) for (leaf,) in found.ends]
    tables = ValueTables(predictions, columns)
    numbers = leaf_numbers(ways, inputs.tensor(columns, graph), graph, tables.numbers)
    return tables.values(graph.node("Transpose", numbers, perm=[1, 0]), len(trees), graph)


def check_classifier(model: Any, owner: str) -> None:
    """Refuse settings of a classification tree, or of a forest that hands them to its trees.

    Raises:
        UnsupportedModelError: names the setting.
    """
    if model.leaf_prediction != "mc" and model.splitter is not None:
        check_splitter(model.splitter, owner)


def check_regressor(model: Any, owner: str) -> None:
    """Refuse settings of a regression tree or forest.

    Raises:
        UnsupportedModelError: names the setting.
    """
    if model.leaf_prediction != "mean" and model.leaf_model is not None:
        check_leaf_model(model.leaf_model, owner)


def by_row(shares: str, graph: Graph) -> str:
    """[2, 1, N] or [2, N] as [N, 2]."""
    return graph.node("Transpose", graph.node("Reshape", shares, graph.integers(2, -1)), perm=[1, 0])


def normalised(shares: str, graph: Graph) -> str:
    """[2, N] times the inverse of its sum, as River scales; left alone where that is 0."""
    total = graph.node("ReduceSum", shares, graph.integers(0), keepdims=1)
    none = graph.node("Equal", total, graph.double(0.0))
    # ONNX Runtime would turn 1 / total · shares into shares / total, which rounds once where River rounds twice.
    inverse = graph.node("Reciprocal", graph.node("Where", none, graph.double(1.0), total))
    return graph.node("Mul", shares, inverse)


def _gradient_tree(model: Any, columns: Columns, graph: Graph) -> str:
    inputs = Inputs(columns.names)
    found = routes(model._root, inputs)
    values = [float(model.loss_func.transfer(leaf.prediction())) for (leaf,) in found.ends]
    numbers = leaf_numbers([found], inputs.tensor(columns, graph), graph)
    return graph.node("Gather", graph.double(values), numbers, axis=0)


class _Nothing:
    """Stands for the root of a tree that has seen nothing."""

    total_weight = 0.0


def _distinct(ends: Sequence[tuple[Any, ...]]) -> tuple[list[Any], Any]:
    """The leaves of all ends, each once, and which of them answer at each end: int64 [ends, most]. Where fewer answer,
    the number after the last leaf fills up.
    """
    number: dict[int, int] = {}
    leaves: list[Any] = []
    for end in ends:
        for leaf in end:
            if id(leaf) not in number:
                number[id(leaf)] = len(leaves)
                leaves.append(leaf)
    members = np.full((len(ends), max(map(len, ends))), len(leaves), np.int64)
    for row, end in zip(members, ends, strict=True):
        row[: len(end)] = [number[id(leaf)] for leaf in end]
    return leaves, members


def _group_rows(numbers: str, rows: Any, members: Any, graph: Graph) -> str:
    """Rows of a table by who answers: int64 [most, N] from the numbers of ends [N, 1]."""
    flat = graph.node("Reshape", numbers, graph.integers(-1))
    return graph.node("Gather", graph.constant(rows[members].T), flat, axis=1)


def _groups(tensor: str, count: int, graph: Graph) -> tuple[str, ...]:
    """[2, count, N] as `count` tensors [2, 1, N]."""
    return (tensor,) if count == 1 else graph.node("Split", tensor, outputs=count, axis=1)
