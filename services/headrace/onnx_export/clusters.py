"""Clusterers: the number of the cluster."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from river import cluster

from headrace.onnx_export.conversion import estimator
from headrace.onnx_export.graph import Columns, Graph


@estimator(cluster.KMeans)
def k_means(model: Any, columns: Columns, graph: Graph) -> str:
    """The cluster whose centre is nearest, Σ |centre − x|^p; the first of several, NaN for a row with NaN.

    River draws the place of a centre along a feature when it first sees the feature; so does this, into the same
    model and in the order of the columns.
    """
    width, clusters = len(columns.names), len(model.centers)
    places = np.array([[center[name] for name in columns.names] for center in model.centers.values()], np.float64)
    each = graph.node("Unsqueeze", columns.tensor, graph.integers(1))
    apart = graph.node("Abs", graph.node("Sub", graph.double(places.reshape(1, clusters, width)), each))
    powers = graph.node("Pow", apart, graph.double(float(model.p)))
    terms = graph.node("Split", powers, outputs=width, axis=2) if width > 1 else (powers,)
    distances = graph.node("Squeeze", graph.sum_in_order(terms), graph.integers(2))
    # A feature that a centre has learned and the row does not have counts as 0.
    absent = [
        sum(abs(value) ** model.p for name, value in center.items() if name not in columns.names)
        for center in model.centers.values()
    ]
    if any(absent):
        distances = graph.node("Add", distances, graph.double(np.array([absent], np.float64)))
    nearest = graph.as_double(graph.node("ArgMin", distances, axis=1, keepdims=1))
    broken = graph.node("IsNaN", graph.row_sum(columns.tensor, width))
    return graph.node("Where", broken, graph.double(math.nan), nearest)
