"""River's aggregated Mondrian forests.

What such a tree says of a row is a mixture over the nodes on its way to the leaf; the weights of the mixture hang on
the nodes alone. So each leaf says one thing, which is worked out here, and the graph only looks it up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import forest

from headrace.onnx_export.conversion import binary_shares, constant_shares, estimator, shares_of
from headrace.onnx_export.graph import Columns, Graph
from headrace.onnx_export.trees_routing import Inputs, leaf_numbers, routes


@shares_of(forest.AMFClassifier)
def aggregated_mondrian_forest_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """The mean of what the trees say."""
    binary_shares(dict.fromkeys(model._classes, 0.0), "AMFClassifier")
    if not len(model):
        return constant_shares((0.0, 0.0), columns, graph)
    said = [_leaf_shares(tree, model.dirichlet) / model.n_estimators for tree in model]
    return _sum_of_trees(model, said, columns, graph)


@estimator(forest.AMFRegressor)
def aggregated_mondrian_forest_regressor(model: Any, columns: Columns, graph: Graph) -> str:
    """The mean of what the trees say; 0 before the first row, where River says None."""
    if not len(model):
        return graph.repeated(0.0, columns.tensor)
    total = _sum_of_trees(model, [_mixtures(tree, _means) for tree in model], columns, graph)
    return graph.node("Div", total, graph.double(float(model.n_estimators)))


def _sum_of_trees(model: Any, said: list[NDArray[np.float64]], columns: Columns, graph: Graph) -> str:
    """Looks up what the leaves of each tree say, [leaves, width], and adds it: [N, width]."""
    inputs = Inputs(columns.names)
    ways = [routes(tree._root, inputs) for tree in model]
    numbers = leaf_numbers(ways, inputs.tensor(columns, graph), graph)
    each = graph.node("Gather", graph.constant(np.concatenate(said)), numbers, axis=0)
    parts = (each,) if len(ways) == 1 else graph.node("Split", each, outputs=len(ways), axis=1)
    return graph.node("Reshape", graph.sum_in_order(parts), graph.integers(-1, said[0].shape[1]))


def _leaf_shares(tree: Any, dirichlet: float) -> NDArray[np.float64]:
    """Shares of False and True by leaf: float64 [leaves, 2]."""
    labels = [tree._idx_to_class[i] for i in range(len(tree._classes))]
    mixed = _mixtures(tree, lambda nodes: _frequencies(nodes, dirichlet, len(labels)))
    total = mixed[:, :1]
    for i in range(1, len(labels)):
        total = total + mixed[:, i : i + 1]
    mixed = mixed * (1.0 / total)
    shares = np.zeros((len(mixed), 2))
    for i, label in enumerate(labels):
        shares[:, int(label)] = mixed[:, i]
    return shares


def _mixtures(tree: Any, said: Callable[[list[Any]], NDArray[np.float64]]) -> NDArray[np.float64]:
    """What each leaf says, mixed with what the nodes above it say, from the leaf up: float64 [leaves, width].

    Args:
        tree: a Mondrian tree.
        said: what the nodes of the tree say by themselves: float64 [nodes, width].
    """
    nodes: list[Any] = []
    parents: list[int] = []
    stack = [(tree._root, -1)]
    while stack:
        node, parent = stack.pop()
        if not node.is_leaf:
            left, right = node.children
            stack += [(right, len(nodes)), (left, len(nodes))]
        nodes.append(node)
        parents.append(parent)
    alone = said(nodes)
    above = np.array(parents)
    at = np.array([i for i, node in enumerate(nodes) if node.is_leaf])
    mixed: NDArray[np.float64] = alone[at]
    if not tree.use_aggregation:
        return mixed
    halves = 0.5 * np.array([math.exp(node.weight - node.log_weight_tree) for node in nodes])
    at, rows = above[at], np.arange(len(at))
    while len(rows := rows[at >= 0]):
        at = at[at >= 0]
        half = halves[at, None]
        mixed[rows] = half * alone[at] + (1 - half) * mixed[rows]
        at = above[at]
    return mixed


def _frequencies(nodes: list[Any], dirichlet: float, classes: int) -> NDArray[np.float64]:
    counts = np.zeros((len(nodes), classes))
    for row, node in zip(counts, nodes, strict=True):
        row[: len(node.counts)] = node.counts
    seen = np.array([[node.n_samples] for node in nodes], np.float64)
    frequencies: NDArray[np.float64] = (counts + dirichlet) / (seen + dirichlet * classes)
    return frequencies


def _means(nodes: list[Any]) -> NDArray[np.float64]:
    return np.array([[node._mean.get()] for node in nodes], np.float64)
