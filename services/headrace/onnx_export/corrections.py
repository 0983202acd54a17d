"""Calibration and correction of probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.estimators import PlattScaling, PriorCorrection
from headrace.estimators.calibration import SMALLEST
from headrace.onnx_export.conversion import convert, estimator
from headrace.onnx_export.graph import Columns, Graph


@estimator(PlattScaling)
def platt_scaling(model: Any, columns: Columns, graph: Graph) -> str:
    """sigmoid(slope · logit(p) + intercept)."""
    given = convert(model.classifier, columns, graph)
    inside = graph.node("Min", graph.node("Max", given, graph.double(SMALLEST)), graph.double(1.0 - SMALLEST))
    logit = graph.node("Log", graph.node("Div", inside, graph.node("Sub", graph.double(1.0), inside)))
    scaled = graph.node("Mul", logit, graph.double(np.float64(model.slope)))
    return graph.node("Sigmoid", graph.node("Add", scaled, graph.double(np.float64(model.intercept))))


@estimator(PriorCorrection)
def prior_correction(model: Any, columns: Columns, graph: Graph) -> str:
    """s·q / (1 − q + s·q)."""
    given = convert(model.classifier, columns, graph)
    scaled = graph.node("Mul", graph.double(model.negatives), given)
    rest = graph.node("Add", graph.node("Sub", graph.double(1.0), given), scaled)
    return graph.node("Div", scaled, rest)
