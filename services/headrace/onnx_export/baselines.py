"""Models that do not look at the features."""

from __future__ import annotations

from typing import Any

from river import dummy

from headrace.onnx_export.conversion import binary_shares, constant_shares, estimator, shares_of
from headrace.onnx_export.graph import Columns, Graph


@shares_of(dummy.NoChangeClassifier, dummy.PriorClassifier)
def constant_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """The class seen last, or how often each was seen."""
    return constant_shares(binary_shares(model.predict_proba_one({}), type(model).__name__), columns, graph)


@estimator(dummy.StatisticRegressor)
def statistic_regressor(model: Any, columns: Columns, graph: Graph) -> str:
    """The statistic; 0 while there is none."""
    value = model.predict_one({})
    return graph.repeated(0.0 if value is None else float(value), columns.tensor)
