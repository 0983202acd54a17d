"""What the leaves of River's classification trees say of a row: class frequencies, or naive Bayes.

Naive Bayes is computed in double precision with River's operations in River's order: densities of each feature on a
log scale are added to the prior one after the other; a feature that is absent, or of which a class has not seen enough,
adds nothing. The parameters of a leaf lie in one row of a table, so one Gather fetches them for every row and tree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.tree.nodes.hatc_nodes import AdaLeafClassifier
from river.tree.nodes.htc_nodes import LeafNaiveBayes, LeafNaiveBayesAdaptive
from river.tree.splitter import GaussianSplitter

from headrace.onnx_export.errors import UnsupportedModelError
from headrace.onnx_export.graph import Columns, Graph

_HALF_LOG_TAU = 0.5 * math.log(math.tau)
_CLASSES = (False, True)


@dataclass(frozen=True)
class Answer:
    """How a leaf answers.

    Attributes:
        stats: weight by class.
        splitters: by feature, if it answers by naive Bayes; else None.
        error: of an adaptive tree, whose leaves count by the inverse of its square; else 0.
    """

    stats: dict[Any, float]
    splitters: dict[Any, Any] | None
    error: float


def answer(leaf: Any, tree: Any) -> Answer:
    """What `leaf.prediction(x, tree=tree)` would do for any x."""
    active = leaf.is_active()
    total = leaf.total_weight
    kind: Any = type(leaf)
    adaptive, by_count, by_success = _kind(kind)
    if adaptive and tree.leaf_prediction != "nba":
        bayes = active and tree.leaf_prediction == "nb" and total >= tree.nb_threshold
    elif by_success:
        bayes = active and leaf._nb_correct_weight >= leaf._mc_correct_weight
    else:
        bayes = by_count and active and total >= tree.nb_threshold
    error = leaf._mean_error.get() if adaptive else 0.0
    if bayes and total == 0:
        return Answer({}, None, error)
    return Answer(leaf.stats, leaf.splitters if bayes else None, error)


@lru_cache
def _kind(kind: Any) -> tuple[bool, bool, bool]:
    """Whether leaves of a class are adaptive, naive Bayes from some weight on, or naive Bayes where it does better."""
    return (
        issubclass(kind, AdaLeafClassifier),
        issubclass(kind, LeafNaiveBayes),
        issubclass(kind, LeafNaiveBayesAdaptive),
    )


class ShareTables:
    """Answers of leaves as tables.

    Args:
        answers: of each leaf.
        columns: features of the model.

    Attributes:
        numbers: int64 [answers]: the row of each answer. Those by naive Bayes come first.
    """

    def __init__(self, answers: Sequence[Answer], columns: Columns) -> None:
        bayes = [i for i, a in enumerate(answers) if a.splitters is not None]
        fixed = [i for i, a in enumerate(answers) if a.splitters is None]
        self.numbers: NDArray[np.int64] = np.empty(len(answers), np.int64)
        self.numbers[bayes + fixed] = np.arange(len(answers))
        self._columns = columns
        self._fixed = np.array([_frequencies(answers[i]) for i in fixed], np.float64).reshape(-1, 2)
        self._bayes = [answers[i] for i in bayes]
        index = {name: i for i, name in enumerate(columns.names)}
        # Of the features that rows have: column and splitter, by answer.
        seen = [[(index[f], s) for f, s in (a.splitters or {}).items() if f in index] for a in self._bayes]
        self._gaussian = [[(column, s) for column, s in found if type(s) is GaussianSplitter] for found in seen]
        self._nominal = [[(column, s) for column, s in found if type(s) is not GaussianSplitter] for found in seen]

    def shares(self, rows: str, groups: int, graph: Graph) -> str:
        """Add the lookup and the arithmetic.

        Args:
            rows: name of an int64 tensor [groups, N]: numbers of answers.
            groups: how many.
            graph: gets the nodes.

        Returns:
            Name of a float64 tensor [2, groups, N]: for False and for True what the leaf says.
        """
        flat = graph.node("Reshape", rows, graph.integers(-1))
        bayes = len(self._bayes)
        if not bayes:
            found = graph.node("Gather", graph.constant(self._fixed.T), flat, axis=1)
        else:
            found = self._naive_bayes(flat, groups, graph)
            if len(self._fixed):
                table = np.vstack([np.zeros((bayes, 2)), self._fixed]).T
                fixed = graph.node("Gather", graph.constant(table), flat, axis=1)
                found = graph.node("Where", graph.node("Less", flat, graph.integers(bayes)), found, fixed)
        return graph.node("Reshape", found, graph.integers(2, groups, -1))

    def _naive_bayes(self, flat: str, groups: int, graph: Graph) -> str:
        bayes = len(self._bayes)
        prior = np.array([_prior(a) for a in self._bayes] + [(0.0, 0.0)], np.float64)
        rows = graph.node("Min", flat, graph.integers(bayes)) if len(self._fixed) else flat
        width, features = self._layout()
        parameters = self._gaussians(width, features is not None)
        table = np.concatenate([parameters.reshape(bayes + 1, -1), prior], axis=1)
        # [answers, 3 · width · 2 + 2] → [3 · width · 2 + 2, groups · N]
        fetched = graph.node("Transpose", graph.node("Gather", graph.constant(table), rows, axis=0), perm=[1, 0])
        if not width:
            terms = [graph.node("Reshape", fetched, graph.integers(1, 2, -1))]
        else:
            sizes = graph.integers(2 * width, 2 * width, 2 * width, 2)
            *parts, last = graph.node("Split", fetched, sizes, outputs=4, axis=0)
            terms = [graph.node("Reshape", last, graph.integers(1, 2, -1))]
            values = self._values(rows, groups, width, features, graph)
            shape = graph.integers(width, 2, -1)
            mean, spread, offset = (graph.node("Reshape", part, shape) for part in parts)
            away = graph.node("Sub", values, mean)
            density = graph.node("Sub", graph.node("Div", graph.node("Mul", away, away), spread), offset)
            # Neither an absent feature (not a number) nor a density of 0 is greater than -∞: both add nothing.
            counts = graph.node("Greater", density, graph.double(-np.inf))
            density = graph.node("Where", counts, density, graph.double(0.0))
            terms += layers(density, width, graph)
        terms += self._categories(rows, groups, graph)
        return self._posterior(graph.node("Reshape", graph.sum_in_order(terms), graph.integers(2, -1)), rows, graph)

    def _posterior(self, votes: str, rows: str, graph: Graph) -> str:
        """River's log-sum-exp of [2, groups · N], and the error of an adaptive tree."""
        largest = graph.node("ReduceMax", votes, axes=[0], keepdims=1)
        exponentials = graph.node("Exp", graph.node("Sub", votes, largest))
        total = graph.node("ReduceSum", exponentials, graph.integers(0), keepdims=1)
        level = graph.node("Add", largest, graph.node("Log", total))
        found = graph.node("Exp", graph.node("Sub", votes, level))
        errors = np.array([a.error for a in self._bayes] + [0.0], np.float64)
        if not errors.any():
            return found
        error = graph.node("Gather", graph.constant(errors.reshape(1, -1)), rows, axis=1)
        whole = graph.node("ReduceSum", found, graph.integers(0), keepdims=1)
        factor = graph.node("Mul", graph.node("Mul", whole, error), error)
        none = graph.node("Equal", factor, graph.double(0.0))
        factor = graph.node("Where", none, graph.double(1.0), factor)
        return graph.node("Mul", found, graph.node("Reciprocal", factor))

    def _layout(self) -> tuple[int, NDArray[np.int64] | None]:
        """How many features are looked at, and which by answer ([answers + 1, width]); None: all columns in order.

        The leaves of a random forest look at few features each.
        """
        chosen = [[column for column, _ in found] for found in self._gaussian]
        width = max(map(len, chosen))
        if 2 * width > len(self._columns.names):
            return len(self._columns.names), None
        features = np.zeros((len(chosen) + 1, width), np.int64)
        for row, columns in zip(features, chosen, strict=False):
            row[: len(columns)] = columns
        return width, features

    def _values(self, rows: str, groups: int, width: int, features: NDArray[np.int64] | None, graph: Graph) -> str:
        """The values looked at: float64, to go with [width, 2, groups · N]."""
        by_feature = graph.node("Transpose", self._columns.tensor, perm=[1, 0])
        if features is None:
            if groups == 1:
                return graph.node("Reshape", by_feature, graph.integers(width, 1, -1))
            tiled = graph.node("Tile", by_feature, graph.integers(1, groups))
            return graph.node("Reshape", tiled, graph.integers(width, 1, -1))
        which = graph.node("Transpose", graph.node("Gather", graph.constant(features), rows, axis=0), perm=[1, 0])
        # [width, groups · N] → [width · groups, N]
        count = graph.node("Slice", graph.node("Shape", by_feature), graph.integers(1), graph.integers(2))
        shape = graph.node("Concat", graph.integers(-1), count, axis=0)
        values = graph.node("GatherElements", by_feature, graph.node("Reshape", which, shape), axis=0)
        return graph.node("Reshape", values, graph.integers(width, 1, -1))

    def _gaussians(self, width: int, chosen: bool) -> NDArray[np.float64]:
        """Mean, −2 · variance, and the rest of the log density: [answers + 1, 3, width, 2].

        Where a class has seen too little of a feature, whatever the value gives 0.
        """
        found = np.zeros((len(self._bayes) + 1, 3, width, 2))
        found[:, 1] = -np.inf
        where: list[tuple[int, int, int]] = []
        moments: list[tuple[float, float]] = []
        for i, (given, splitters) in enumerate(zip(self._bayes, self._gaussian, strict=True)):
            labels = [label for label, weight in given.stats.items() if weight > 0]
            for position, (column, splitter) in enumerate(splitters):
                distributions = splitter._att_dist_per_class
                for label in labels:
                    distribution = distributions.get(label)
                    if distribution is None:
                        continue
                    var = distribution._var
                    freedom = var.mean.n - var.ddof
                    if freedom > 0:
                        variance = var._S / freedom
                        if variance > 0:
                            where.append((i, position if chosen else column, int(label)))
                            moments.append((var.mean._mean, variance))
        if where:
            rows, slots, classes = np.array(where).T
            mean, variances = np.array(moments, np.float64).T
            found[rows, 0, slots, classes] = mean
            found[rows, 1, slots, classes] = -2.0 * variances
            found[rows, 2, slots, classes] = [_HALF_LOG_TAU + 0.5 * math.log(v) for _, v in moments]
        return found

    def _categories(self, rows: str, groups: int, graph: Graph) -> list[str]:
        """Log frequencies of categories, one tensor [1, 2, groups · N] for each feature that has them."""
        by_column: dict[int, list[tuple[int, Any]]] = {}
        for i, found in enumerate(self._nominal):
            for number, splitter in found:
                by_column.setdefault(number, []).append((i, splitter))
        terms = []
        for number, splitters in by_column.items():
            values = sorted({float(v) for _, s in splitters for v in s._att_values if not math.isnan(v)})
            # Column 0 stands for any other value, and for an absent one.
            table = np.zeros((2, len(self._bayes) + 1, len(values) + 1))
            for i, splitter in splitters:
                for label in _CLASSES:
                    seen = splitter._att_dist_per_class.get(label)
                    if seen and self._bayes[i].stats.get(label, 0.0) > 0:
                        for j, value in enumerate(values, 1):
                            share = splitter.cond_proba(value, label)
                            table[int(label), i, j] = math.log(share) if share > 0 else 0.0
            column = graph.node("Gather", self._columns.tensor, graph.integers(number), axis=1)
            equal = graph.node("Equal", column, graph.double(np.array([values])))
            places = graph.constant(np.arange(1, len(values) + 1).reshape(1, -1))
            place = graph.node("Where", equal, places, graph.integers(0))
            place = graph.node("ReduceSum", place, graph.integers(1), keepdims=0)
            if groups > 1:
                place = graph.node("Tile", place, graph.integers(groups))
            cell = graph.node("Add", graph.node("Mul", rows, graph.integers(len(values) + 1)), place)
            fetched = graph.node("Gather", graph.constant(table.reshape(2, -1)), cell, axis=1)
            terms.append(graph.node("Reshape", fetched, graph.integers(1, 2, -1)))
        return terms


def _frequencies(given: Answer) -> tuple[float, float]:
    """Shares of False and True as River normalises them."""
    stats = given.stats
    total = sum(stats.values())
    if total == 0 or math.isnan(total):
        shares = {label: float(weight) for label, weight in stats.items()}
    else:
        shares = {label: weight * (1 / total) for label, weight in stats.items()}
    if given.error:
        factor = sum(shares.values()) * given.error * given.error
        if factor != 0 and not math.isnan(factor):
            shares = {label: share * (1 / factor) for label, share in shares.items()}
    return shares.get(False, 0.0), shares.get(True, 0.0)


def _prior(given: Answer) -> tuple[float, float]:
    """Log share of each class in a leaf; River gives a class without weight 0, and one it has not seen nothing."""
    total = sum(given.stats.values())
    logs = [-math.inf, -math.inf]
    for label, weight in given.stats.items():
        logs[int(label)] = math.log(weight / total) if weight > 0 else 0.0
    return logs[0], logs[1]


def layers(tensor: str, count: int, graph: Graph) -> tuple[str, ...]:
    """[count, …] as `count` tensors [1, …]."""
    return (tensor,) if count == 1 else graph.node("Split", tensor, outputs=count, axis=0)


def check_splitter(splitter: Any, owner: str) -> None:
    """Refuse an observer of numeric features whose densities have no ONNX form.

    Raises:
        UnsupportedModelError: names it.
    """
    if type(splitter) is not GaussianSplitter:
        raise UnsupportedModelError(
            f"{owner}(splitter={type(splitter).__name__}): with naive Bayes leaves only GaussianSplitter has an ONNX "
            "form; leaf_prediction='mc' takes any splitter"
        )
