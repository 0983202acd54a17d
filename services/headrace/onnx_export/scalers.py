"""Scalers: each value by itself, and only afterwards whatever comes next.

Nothing is folded into the weights behind it: a mean that is large beside the deviation would cancel there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import preprocessing

from headrace.onnx_export.conversion import only, transformer
from headrace.onnx_export.graph import Columns, Graph


@transformer(preprocessing.StandardScaler)
def standard_scaler(step: Any, columns: Columns, graph: Graph) -> Columns:
    """(x − mean) / deviation; 0 where a feature has not varied, whatever its value."""
    only(step.window_size is None, "StandardScaler(window_size=...): only the running scaler has an ONNX form")
    centred = graph.node("Sub", columns.tensor, _each(graph, [step.means.get(name, 0.0) for name in columns.names]))
    if not step.with_std:
        return Columns(centred, columns.names)
    variances = [step.vars.get(name, 0.0) for name in columns.names]
    return Columns(divided(graph, centred, [v**0.5 if v > 0 else 0.0 for v in variances]), columns.names)


def divided(graph: Graph, tensor: str, by: list[float]) -> str:
    """Each column of [N, n] by its divisor; 0 where that is 0."""
    divisors: NDArray[np.float64] = np.array(by, np.float64)
    quotient = graph.node("Div", tensor, _each(graph, np.where(divisors == 0, 1.0, divisors)))
    if divisors.all():
        return quotient
    return graph.node("Where", graph.constant((divisors != 0).reshape(1, -1)), quotient, graph.double(0.0))


def _each(graph: Graph, values: list[float] | NDArray[np.float64]) -> str:
    """A constant for each column: float64 [1, n]."""
    return graph.double(np.array(values, np.float64).reshape(1, -1))
