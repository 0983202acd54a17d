"""Scalers: each value by itself, and only afterwards whatever comes next.

Nothing is folded into the weights behind it: a mean that is large beside the deviation would cancel there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import preprocessing

from headrace.estimators import ConstantScaler
from headrace.onnx_export.conversion import only, transformer
from headrace.onnx_export.graph import Columns, Graph


@transformer(preprocessing.StandardScaler)
def standard_scaler(step: Any, columns: Columns, graph: Graph) -> Columns:
    """(x − mean) / deviation; 0 where a feature has not varied, whatever its value."""
    only(
        step.window_size is None,
        "StandardScaler(window_size=...): its variance falls below 0 by rounding, and River then gives complex numbers",
    )
    centred = _subtracted(graph, columns.tensor, [step.means.get(name, 0.0) for name in columns.names])
    if not step.with_std:
        return Columns(centred, columns.names)
    return Columns(_divided(graph, centred, [_root(step.vars.get(n, 0.0)) for n in columns.names]), columns.names)


@transformer(preprocessing.AdaptiveStandardScaler)
def adaptive_standard_scaler(step: Any, columns: Columns, graph: Graph) -> Columns:
    """(x − mean) / deviation, both exponentially weighted; 0 where a feature has not varied."""
    means = [step.means[name].get() if name in step.means else 0.0 for name in columns.names]
    variances = [step.vars[name].get() if name in step.vars else 0.0 for name in columns.names]
    centred = _subtracted(graph, columns.tensor, means)
    return Columns(_divided(graph, centred, [_root(variance) for variance in variances]), columns.names)


@transformer(preprocessing.MinMaxScaler)
def min_max_scaler(step: Any, columns: Columns, graph: Graph) -> Columns:
    """(x − min) / (max − min); 0 where they are equal, NaN (as River has it) for a feature that was never seen."""
    low = [step.min[name].get() if name in step.min else math.inf for name in columns.names]
    high = [step.max[name].get() if name in step.max else -math.inf for name in columns.names]
    # A windowed minimum of nothing is None.
    low = [math.inf if value is None else value for value in low]
    high = [-math.inf if value is None else value for value in high]
    centred = _subtracted(graph, columns.tensor, low)
    return Columns(_divided(graph, centred, [b - a for a, b in zip(low, high, strict=True)]), columns.names)


@transformer(preprocessing.MaxAbsScaler)
def max_abs_scaler(step: Any, columns: Columns, graph: Graph) -> Columns:
    """x / max |x|; 0 where that is 0."""
    largest = [(step.abs_max[name].get() if name in step.abs_max else 0.0) or 0.0 for name in columns.names]
    return Columns(_divided(graph, columns.tensor, largest), columns.names)


@transformer(preprocessing.RobustScaler)
def robust_scaler(step: Any, columns: Columns, graph: Graph) -> Columns:
    """(x − median) / interquantile range; 0 where the range is 0 or unknown."""
    tensor = columns.tensor
    if step.with_centering:
        medians = [step.median[name].get() if name in step.median else None for name in columns.names]
        tensor = _subtracted(graph, tensor, [0.0 if median is None else median for median in medians])
    if step.with_scaling:
        ranges = [step.iqr[name].get() if name in step.iqr else None for name in columns.names]
        tensor = _divided(graph, tensor, [span or 0.0 for span in ranges])
    return Columns(tensor, columns.names)


@transformer(ConstantScaler)
def constant_scaler(step: Any, columns: Columns, graph: Graph) -> Columns:
    """x / divisor."""
    return Columns(graph.node("Div", columns.tensor, graph.double(float(step.divisor))), columns.names)


@transformer(preprocessing.Normalizer)
def normalizer(step: Any, columns: Columns, graph: Graph) -> Columns:
    """x / ‖x‖ over the row; NaN where the norm is 0, which River cannot divide by either."""
    only(step.order in (None, 1, 2, math.inf), f"Normalizer(order={step.order}): only 1, 2 and inf have an ONNX form")
    if step.order in (None, 2):
        norm = graph.node("Sqrt", graph.row_sum(graph.node("Mul", columns.tensor, columns.tensor), len(columns.names)))
    elif step.order == 1:
        norm = graph.row_sum(graph.node("Abs", columns.tensor), len(columns.names))
    else:
        norm = graph.node("ReduceMax", graph.node("Abs", columns.tensor), axes=[1], keepdims=1)
    return Columns(graph.node("Div", columns.tensor, norm), columns.names)


@transformer(preprocessing.Binarizer)
def binarizer(step: Any, columns: Columns, graph: Graph) -> Columns:
    """1 above the threshold, 0 else."""
    only(step.dtype in (bool, int, float), f"Binarizer(dtype={step.dtype}): only bool, int and float have an ONNX form")
    above = graph.node("Greater", columns.tensor, graph.double(float(step.threshold)))
    return Columns(graph.as_double(above), columns.names)


def _root(variance: float) -> float:
    # As River takes it; math.sqrt may differ in the last bit.
    return float(variance**0.5) if variance > 0 else 0.0


def _subtracted(graph: Graph, tensor: str, values: Sequence[float]) -> str:
    """Each column of [N, n] less its value."""
    return graph.node("Sub", tensor, _each(graph, np.array(values, np.float64)))


def _divided(graph: Graph, tensor: str, by: Sequence[float]) -> str:
    """Each column of [N, n] by its divisor; 0 where that is 0."""
    divisors: NDArray[np.float64] = np.array(by, np.float64)
    quotient = graph.node("Div", tensor, _each(graph, np.where(divisors == 0, 1.0, divisors)))
    if divisors.all():
        return quotient
    return graph.node("Where", graph.constant((divisors != 0).reshape(1, -1)), quotient, graph.double(0.0))


def _each(graph: Graph, values: NDArray[np.float64]) -> str:
    """A constant for each column: float64 [1, n]."""
    return graph.double(values.reshape(1, -1))
