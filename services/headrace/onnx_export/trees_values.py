"""What the leaves of River's regression trees say of a row: the mean of the target, or a linear model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import linear_model, optim
from river.tree.nodes.htr_nodes import LeafAdaptive, LeafModel

from headrace.onnx_export.errors import UnsupportedModelError
from headrace.onnx_export.graph import Columns, Graph


@dataclass(frozen=True)
class Prediction:
    """How a leaf answers: `mean`, unless it asks its linear model."""

    mean: float
    model: Any


def prediction(leaf: Any) -> Prediction:
    """What `leaf.prediction(x)` would do for any x."""
    modelled = isinstance(leaf, LeafModel) and not (
        isinstance(leaf, LeafAdaptive) and leaf._fmse_mean < leaf._fmse_model
    )
    return Prediction(float(leaf.stats.mean.get()), leaf._leaf_model if modelled else None)


class ValueTables:
    """Answers of leaves as tables.

    Args:
        predictions: of each leaf.
        columns: features of the model.

    Attributes:
        numbers: int64 [predictions]: the row of each. Those by a linear model come first.
    """

    def __init__(self, predictions: Sequence[Prediction], columns: Columns) -> None:
        modelled = [i for i, p in enumerate(predictions) if p.model is not None]
        fixed = [i for i, p in enumerate(predictions) if p.model is None]
        self.numbers: NDArray[np.int64] = np.empty(len(predictions), np.int64)
        self.numbers[modelled + fixed] = np.arange(len(predictions))
        self._columns = columns
        self._models = [predictions[i].model for i in modelled]
        self._fixed = np.array([predictions[i].mean for i in fixed], np.float64)

    def values(self, rows: str, groups: int, graph: Graph) -> str:
        """Add the lookup and the arithmetic.

        Args:
            rows: name of an int64 tensor [groups, N]: numbers of predictions.
            groups: how many.
            graph: gets the nodes.

        Returns:
            Name of a float64 tensor [groups, N].
        """
        models = len(self._models)
        if not models:
            return graph.node("Gather", graph.constant(self._fixed), rows, axis=0)
        found = self._linear(rows, groups, graph)
        if len(self._fixed):
            table = graph.constant(np.concatenate([np.zeros(models), self._fixed]))
            fixed = graph.node("Gather", table, rows, axis=0)
            found = graph.node("Where", graph.node("Less", rows, graph.integers(models)), found, fixed)
        return found

    def _linear(self, rows: str, groups: int, graph: Graph) -> str:
        """Σ weight · value + intercept; an absent feature counts for nothing, as in River."""
        names = self._columns.names
        table = np.zeros((len(self._models) + 1, len(names) + 1))
        for row, model in zip(table, self._models, strict=False):
            weights = model.weights
            row[:-1] = [weights.get(name, 0.0) for name in names]
            row[-1] = model.intercept
        if len(self._fixed):
            rows = graph.node("Min", rows, graph.integers(len(self._models)))
        fetched = graph.node("Gather", graph.constant(table), rows, axis=0)
        sizes = graph.integers(len(names), 1)
        weights, intercept = graph.node("Split", fetched, sizes, outputs=2, axis=2)
        absent = graph.node("IsNaN", self._columns.tensor)
        values = graph.node("Where", absent, graph.double(0.0), self._columns.tensor)
        # [groups, N, features] · [N, features]
        terms = graph.node("Mul", weights, values)
        # One after the other: a sum that depends on the size of the batch would give a row two answers.
        parts = (terms,) if len(names) == 1 else graph.node("Split", terms, outputs=len(names), axis=2)
        total = graph.node("Add", graph.sum_in_order(parts), intercept)
        return graph.node("Reshape", total, graph.integers(groups, -1))


def check_leaf_model(model: Any, owner: str) -> None:
    """Refuse a leaf model that is not linear.

    Raises:
        UnsupportedModelError: names it.
    """
    if type(model) is not linear_model.LinearRegression:
        raise UnsupportedModelError(
            f"{owner}(leaf_model={type(model).__name__}): only LinearRegression has an ONNX form in a leaf; "
            "leaf_prediction='mean' needs no model"
        )
    if isinstance(model.loss, optim.losses.Poisson) or type(model.initializer) is not optim.initializers.Zeros:
        raise UnsupportedModelError(
            f"{owner}(leaf_model=LinearRegression(...)): with a Poisson loss, or an initializer other than Zeros, it "
            "has no ONNX form in a leaf"
        )
