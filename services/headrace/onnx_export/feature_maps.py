"""New features out of the given ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from river import feature_extraction

from headrace.onnx_export.conversion import only, transformer
from headrace.onnx_export.graph import Columns, Graph


@transformer(feature_extraction.RBFSampler)
def rbf_sampler(step: Any, columns: Columns, graph: Graph) -> Columns:
    """cos(x · w + offset): with a linear model behind it, a kernel machine.

    River draws the weights of a feature when it first sees it; so does this, into the same step and in the order of
    the columns.
    """
    width, per_feature = len(columns.names), step.n_components
    weights = np.array([step.weights[name] for name in columns.names], np.float64)
    each = graph.node("Unsqueeze", columns.tensor, graph.integers(2))
    angles = graph.node("Mul", each, graph.double(weights.reshape(1, width, per_feature)))
    angles = graph.node("Add", angles, graph.double(np.array(step.offsets).reshape(1, 1, per_feature)))
    flat = graph.node("Reshape", graph.node("Cos", angles), graph.integers(-1, width * per_feature))
    return Columns(flat, tuple((name, j) for name in columns.names for j in range(per_feature)))


@transformer(feature_extraction.PolynomialExtender)
def polynomial_extender(step: Any, columns: Columns, graph: Graph) -> Columns:
    """Products of features up to a degree."""
    at = {name: i for i, name in enumerate(columns.names)}
    named: dict[str, tuple[int, ...]] = {}
    for combination in step._enumerate(columns.names):
        named["*".join(map(str, sorted(combination)))] = tuple(at[name] for name in combination)
    only(bool(named), "PolynomialExtender: no product is left")
    tensors, order = [], []
    for degree in sorted({len(indices) for indices in named.values()}):
        group = {name: indices for name, indices in named.items() if len(indices) == degree}
        product = ""
        for factor in range(degree):
            picked = graph.integers(*(indices[factor] for indices in group.values()))
            picked = graph.node("Gather", columns.tensor, picked, axis=1)
            product = graph.node("Mul", product, picked) if product else picked
        tensors.append(product)
        order += list(group)
    if step.include_bias:
        tensors.append(graph.repeated(1.0, columns.tensor))
        order.append(step.bias_name)
    names = tuple(named) + ((step.bias_name,) if step.include_bias else ())
    joined = graph.join(tensors)
    return Columns(graph.node("Gather", joined, graph.integers(*map(order.index, names)), axis=1), names)
