"""Naive Bayes over Gaussians."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from river import naive_bayes

from headrace.onnx_export.conversion import binary_shares, constant_shares, shares_of
from headrace.onnx_export.graph import Columns, Graph

# What River adds to a density before it takes the logarithm.
_DENSITY_FLOOR = 10e-10


@shares_of(naive_bayes.GaussianNB)
def gaussian_nb(model: Any, columns: Columns, graph: Graph) -> str:
    """exp(log p(c) + Σ log(1e-9 + density) − the logarithm of the sum of both)."""
    binary_shares(model.class_counts, "GaussianNB")
    likelihoods = {bool(label): _likelihood(model, label, columns, graph) for label in model.class_counts}
    if len(likelihoods) < 2:
        return constant_shares((float(False in likelihoods), float(True in likelihoods)), columns, graph)
    both = graph.join([likelihoods[False], likelihoods[True]])
    larger = graph.node("Max", *likelihoods.values())
    smaller = graph.node("Min", *likelihoods.values())
    ratio = graph.node("Exp", graph.node("Sub", smaller, larger))
    total = graph.node("Add", graph.node("Log", graph.node("Add", graph.double(1.0), ratio)), larger)
    return graph.node("Exp", graph.node("Sub", both, total))


def _likelihood(model: Any, label: Any, columns: Columns, graph: Graph) -> str:
    """log p(c) + Σ log(1e-9 + density of x): float64 [N, 1]."""
    means, deviations, known = [], [], []
    gaussians = model.gaussians.get(label, {})
    for name in columns.names:
        gaussian = gaussians.get(name)
        mean, deviation = (0.0, 0.0) if gaussian is None else _moments(gaussian._var)
        means.append(mean)
        deviations.append(deviation or 1.0)
        known.append(deviation > 0)
    off = graph.node("Sub", columns.tensor, graph.double(np.array([means])))
    scaled = graph.node("Div", off, graph.double(np.array([deviations])))
    # (−½ · z) · z, divided by the root and then by the deviation, as River orders it.
    exponent = graph.node("Mul", graph.node("Mul", graph.double(-0.5), scaled), scaled)
    density = graph.node("Div", graph.node("Exp", exponent), graph.double(math.sqrt(2.0 * math.pi)))
    density = graph.node("Div", density, graph.double(np.array([deviations])))
    logs = graph.node("Log", graph.node("Add", graph.double(_DENSITY_FLOOR), density))
    if not all(known):
        floor = graph.double(math.log(_DENSITY_FLOOR))
        logs = graph.node("Where", graph.constant(np.array([known])), logs, floor)
    prior = math.log(model.class_counts[label] / sum(model.class_counts.values()))
    return graph.node("Add", graph.double(prior), graph.row_sum(logs, len(columns.names)))


def _moments(var: Any) -> tuple[float, float]:
    """Mean and deviation; a deviation of 0 where River takes the density as 0."""
    count = var.mean.n
    if count <= var.ddof:
        return 0.0, 0.0
    variance = var._S / (count - var.ddof)
    return float(var.mean._mean), math.sqrt(variance) if variance > 0 else 0.0
