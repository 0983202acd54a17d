"""Which leaf of a River tree a row reaches, as one TreeEnsembleRegressor over any number of trees.

The operator gets doubles and compares with thresholds that are doubles, so it decides as River does, whether the
columns come straight from the input or through a scaler. It answers with the number of the leaf (a float32, exact up
to 2²⁴); what a leaf says is looked up elsewhere. A value that is not a number is one that River's row lacks: it goes
down the child that has seen more.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from river.tree.base import Branch
from river.tree.mondrian.mondrian_tree_nodes import MondrianBranch, MondrianNode
from river.tree.nodes.branch import (
    DTBranch,
    NominalBinaryBranch,
    NominalMultiwayBranch,
    NumericBinaryBranch,
    NumericMultiwayBranch,
)

from headrace.onnx_export.errors import UnsupportedModelError
from headrace.onnx_export.graph import Columns, Graph

_LEAF, _AT_MOST, _EQUAL = 0, 1, 2
_MODES = np.array(["LEAF", "BRANCH_LEQ", "BRANCH_EQ"])
_LIMIT = 2**24


@dataclass
class Inputs:
    """What the tests of trees look at: the columns of the model, and slots of them where a split has many intervals.

    Attributes:
        names: of the columns, in order.
    """

    names: tuple[Any, ...]
    slots: dict[tuple[int, float], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._index = {name: i for i, name in enumerate(self.names)}

    def column(self, feature: Any) -> int | None:
        """Number of the column of a feature; None for one that no row has."""
        return self._index.get(feature)

    def slot(self, column: int, radius: float) -> int:
        """Number of the column that holds floor(x / radius)."""
        return self.slots.setdefault((column, radius), len(self.names) + len(self.slots))

    def tensor(self, columns: Columns, graph: Graph) -> str:
        """Float64 [N, columns and slots]."""
        if not self.slots:
            return columns.tensor
        chosen = graph.node("Gather", columns.tensor, graph.integers(*(c for c, _ in self.slots)), axis=1)
        radii = graph.double(np.array([[radius for _, radius in self.slots]]))
        return graph.join([columns.tensor, graph.node("Floor", graph.node("Div", chosen, radii))])


@dataclass
class Routes:
    """A tree as flat arrays, one element a node, the root first.

    Attributes:
        ends: what answers for a row that arrives, by number of the end: leaves of River, in the order in which River
            adds what they say. More than one only in adaptive trees with alternate trees.
    """

    columns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    true: list[int] = field(default_factory=list)
    false: list[int] = field(default_factory=list)
    missing_is_true: list[int] = field(default_factory=list)
    end_of_node: list[int] = field(default_factory=list)
    ends: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, mode: int, column: int = 0, value: float = 0.0, missing_is_true: int = 0, end: int = -1) -> int:
        """Append a node and return its number; its children are set later."""
        self.columns.append(column)
        self.values.append(value)
        self.modes.append(mode)
        self.true.append(0)
        self.false.append(0)
        self.missing_is_true.append(missing_is_true)
        self.end_of_node.append(end)
        return len(self.modes) - 1


def routes(root: Any, inputs: Inputs) -> Routes:
    """The tree under `root`.

    Args:
        root: a leaf or branch of a River tree.
        inputs: what the tests look at; gets the slots that this tree needs.
    """
    plain = _plain_routes(root, inputs)
    if plain is not None:
        return plain
    if isinstance(root, MondrianBranch):
        raise UnsupportedModelError("a Mondrian tree has learned a feature that is not among the model's columns")
    return _General(inputs).routes(root)


def leaf_numbers(trees: Sequence[Routes], inputs: str, graph: Graph, numbers: NDArray[np.int64] | None = None) -> str:
    """Add the routing of some trees.

    Args:
        trees: at least one. The ends of the second count on from those of the first, and so on.
        inputs: name of a float64 tensor [N, columns and slots].
        graph: gets the nodes.
        numbers: what to answer for each end, instead of its number.

    Returns:
        Name of an int64 tensor [N, trees]: the number of the end.

    Raises:
        UnsupportedModelError: the trees have more than 2²⁴ ends or nodes.
    """
    lengths = [len(tree.modes) for tree in trees]
    if sum(lengths) > _LIMIT:
        raise UnsupportedModelError(f"{sum(lengths)} nodes of trees: at most {_LIMIT} have an ONNX form")
    tree_of_node = np.repeat(np.arange(len(trees)), lengths)
    number_in_tree = np.concatenate([np.arange(length) for length in lengths])
    first_end = np.cumsum([0, *(len(tree.ends) for tree in trees[:-1])])
    modes = np.concatenate([np.array(tree.modes, np.int64) for tree in trees])
    ends = np.concatenate([np.array(tree.end_of_node, np.int64) for tree in trees]) + first_end[tree_of_node]
    leaf = modes == _LEAF
    weights = ends[leaf] if numbers is None else numbers[ends[leaf]]
    flat = graph.node(
        "TreeEnsembleRegressor",
        inputs,
        domain="ai.onnx.ml",
        n_targets=len(trees),
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=tree_of_node.tolist(),
        nodes_nodeids=number_in_tree.tolist(),
        nodes_featureids=[column for tree in trees for column in tree.columns],
        nodes_modes=_MODES[modes].tolist(),
        nodes_values_as_tensor=np.concatenate([np.array(tree.values, np.float64) for tree in trees]),
        nodes_truenodeids=[child for tree in trees for child in tree.true],
        nodes_falsenodeids=[child for tree in trees for child in tree.false],
        nodes_missing_value_tracks_true=[side for tree in trees for side in tree.missing_is_true],
        target_treeids=tree_of_node[leaf].tolist(),
        target_nodeids=number_in_tree[leaf].tolist(),
        target_ids=tree_of_node[leaf].tolist(),
        target_weights_as_tensor=weights.astype(np.float64),
    )
    return graph.node("Cast", flat, to=TensorProto.INT64)


def _plain_routes(root: Any, inputs: Inputs) -> Routes | None:
    """The tree, if it has only thresholds of known features and no alternate trees; else None. The common case."""
    columns: list[int] = []
    values: list[float] = []
    false: list[int] = []
    weights: list[float | None] = []
    leaves: list[tuple[Any, ...]] = []
    stack: list[tuple[Any, int]] = [(root, -1)]
    while stack:
        node, parent = stack.pop()
        if parent >= 0:
            false[parent] = len(columns)
        kind: Any = type(node)
        tested, adds_up = _kind(kind)
        weights.append(None if adds_up else _own_weight(node))
        false.append(0)
        if tested is None:
            columns.append(-1)
            values.append(0.0)
            leaves.append((node,))
            continue
        column = inputs.column(node.feature) if tested else None
        if column is None or _alternate(node):
            return None
        left, right = node.children
        stack += ((right, len(columns)), (left, -1))
        columns.append(column)
        values.append(node.threshold)
    # A branch weighs what its children do; adding from the leaves up does each addition of River's recursion once.
    missing_is_true = [0] * len(columns)
    for number in range(len(columns) - 1, -1, -1):
        if columns[number] >= 0:
            left_weight, right_weight = weights[number + 1] or 0.0, weights[false[number]] or 0.0
            missing_is_true[number] = int(not left_weight < right_weight)
            if weights[number] is None:
                weights[number] = left_weight + right_weight
    is_leaf = np.array(columns) < 0
    return Routes(
        columns=np.where(is_leaf, 0, columns).tolist(),
        values=values,
        modes=np.where(is_leaf, _LEAF, _AT_MOST).tolist(),
        # The left child of a node follows it.
        true=np.where(is_leaf, 0, np.arange(1, len(columns) + 1)).tolist(),
        false=false,
        missing_is_true=missing_is_true,
        end_of_node=np.where(is_leaf, np.cumsum(is_leaf) - 1, -1).tolist(),
        ends=leaves,
    )


@lru_cache
def _kind(kind: Any) -> tuple[bool | None, bool]:
    """Whether nodes of a class test a threshold (None: they are leaves), and whether they weigh what their children
    do together.
    """
    if not issubclass(kind, Branch):
        return None, False
    adds_up = getattr(kind, "total_weight", None) is DTBranch.total_weight
    return issubclass(kind, NumericBinaryBranch | MondrianBranch), adds_up


def _own_weight(node: Any) -> float:
    """What a node weighs against its sibling, if it does not add up its children."""
    return float(node.weight if isinstance(node, MondrianNode) else node.total_weight)


class _General:
    """Trees with splits on categories or intervals, features that no row has, or alternate trees.

    An adaptive tree asks the alternate tree of every branch on the way, too. What answers is then more than a leaf:
    each end stands for all that answer together.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._weights: dict[int, float] = {}
        self._routes = Routes()
        self._numbers: dict[tuple[int, ...], int] = {}

    def routes(self, root: Any) -> Routes:
        self._weigh(root)
        # Each entry: a node of River, who answers already, and the node (with its side) that leads there.
        stack: list[tuple[Any, tuple[Any, ...], int, bool]] = [(root, (), -1, False)]
        while stack:
            node, answering, parent, side = stack.pop()
            if not isinstance(node, DTBranch):
                self._link(parent, side, self._routes.add(_LEAF, end=self._end((*answering, node))))
                continue
            branch: Any = node
            answering += _alternate(branch)
            heavier = self._heavier(branch)
            absent = answering
            if isinstance(heavier, DTBranch):
                # Where the feature is absent, River's walk names the heavier child twice, and a branch among them
                # answers twice with its alternate tree.
                absent += _alternate(heavier)
            column = self._inputs.column(branch.feature)
            if column is None:
                stack.append((heavier, absent, parent, side))
            elif isinstance(node, NumericBinaryBranch | NominalBinaryBranch):
                stack.extend(self._binary(node, column, heavier, answering, absent, parent, side))
            else:
                stack.extend(self._multiway(node, column, heavier, answering, absent, parent, side))
        return self._routes

    def _binary(
        self,
        node: Any,
        column: int,
        heavier: Any,
        answering: tuple[Any, ...],
        absent: tuple[Any, ...],
        parent: int,
        side: bool,
    ) -> list[tuple[Any, tuple[Any, ...], int, bool]]:
        left, right = node.children
        rest = []
        if len(absent) > len(answering):
            # Whatever is a number is at most infinity.
            present = self._routes.add(_AT_MOST, column, np.inf)
            self._link(parent, side, present)
            rest.append((heavier, absent, present, False))
            parent, side = present, True
        numeric = isinstance(node, NumericBinaryBranch)
        if not numeric and not isinstance(node.value, numbers.Real):
            # A category that no number equals; an absent value goes to the heavier child all the same.
            test = self._routes.add(_AT_MOST, column, np.inf)
            self._link(parent, side, test)
            return [*rest, (right, answering, test, True), (heavier, answering, test, False)]
        value = float(node.threshold if numeric else node.value)
        test = self._routes.add(_AT_MOST if numeric else _EQUAL, column, value, int(heavier is left))
        self._link(parent, side, test)
        return [*rest, (right, answering, test, False), (left, answering, test, True)]

    def _multiway(
        self,
        node: Any,
        column: int,
        heavier: Any,
        answering: tuple[Any, ...],
        absent: tuple[Any, ...],
        parent: int,
        side: bool,
    ) -> list[tuple[Any, tuple[Any, ...], int, bool]]:
        """A chain of tests for one category each; what is none of them goes the way of an absent value."""
        if isinstance(node, NumericMultiwayBranch):
            column = self._inputs.slot(column, float(node.radius))
        elif not isinstance(node, NominalMultiwayBranch):
            raise UnsupportedModelError(f"{type(node).__name__}: a split of this kind has no ONNX form")
        rest = []
        for value, child in node._mapping.items():
            reached = node.children[child]
            if not isinstance(value, numbers.Real) or (reached is heavier and len(absent) == len(answering)):
                continue
            test = self._routes.add(_EQUAL, column, float(value))
            self._link(parent, side, test)
            rest.append((reached, answering, test, True))
            parent, side = test, False
        return [*rest, (heavier, absent, parent, side)]

    def _link(self, parent: int, side: bool, child: int) -> None:
        if parent >= 0:
            (self._routes.true if side else self._routes.false)[parent] = child
        if child > _LIMIT:
            raise UnsupportedModelError(f"more than {_LIMIT} nodes of a tree have no ONNX form")

    def _end(self, answering: tuple[Any, ...]) -> int:
        key = tuple(map(id, answering))
        if key not in self._numbers:
            self._numbers[key] = len(self._routes.ends)
            self._routes.ends.append(answering)
        return self._numbers[key]

    def _weigh(self, root: Any) -> None:
        order, stack = [], [root]
        while stack:
            node = stack.pop()
            order.append(node)
            if isinstance(node, DTBranch):
                stack.extend(node.children)
        for node in reversed(order):
            kind: Any = type(node)
            if _kind(kind)[1]:
                self._weights[id(node)] = sum(self._weights[id(child)] for child in node.children)
            else:
                self._weights[id(node)] = _own_weight(node)

    def _heavier(self, node: Any) -> Any:
        """The child that `most_common_path` names: the first of the heaviest."""
        weights = [self._weights[id(child)] for child in node.children]
        return node.children[max(range(len(weights)), key=weights.__getitem__)]


def _alternate(node: Any) -> tuple[Any, ...]:
    """The alternate tree of a branch, if it has one. River's adaptive trees only ever have a leaf there: when it
    splits, it takes the place of the branch.
    """
    alternate = getattr(node, "_alternate_tree", None)
    if alternate is None:
        return ()
    if isinstance(alternate, DTBranch):
        raise UnsupportedModelError(f"{type(node).__name__}: an alternate tree with branches has no ONNX form")
    return (alternate,)
