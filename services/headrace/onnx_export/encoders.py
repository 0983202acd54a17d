"""Encoders of classes. Features are numbers, so a class is a numeric code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from river import preprocessing

from headrace.onnx_export.conversion import only, transformer
from headrace.onnx_export.errors import UnsupportedModelError
from headrace.onnx_export.graph import Columns, Graph


@transformer(preprocessing.OneHotEncoder)
def one_hot_encoder(step: Any, columns: Columns, graph: Graph) -> Columns:
    """A column for each class that was seen or declared. A class that was not sets none of them.

    River names such a class in the row; what follows has learned nothing about it, so the column is left out here.
    −0 counts as 0.
    """
    only(not step.drop_zeros, "OneHotEncoder(drop_zeros=True): its columns differ from row to row, which has no form")
    only(
        not step.drop_first or step.categories is not None,
        "OneHotEncoder(drop_first=True): has a form only with `categories`; else a new class may change what is first",
    )
    at = {name: i for i, name in enumerate(columns.names)}
    encoded = {}
    for feature, codes in step.values.items():
        for code in codes:
            only(
                f"{code}" == f"{_number('OneHotEncoder', feature, code)}",
                f"OneHotEncoder(categories=...): {code!r} of {feature!r} must be a float, as features are",
            )
            if feature in at:
                encoded[f"{feature}_{code}"] = (at[feature], float(code))
    if step.categories is not None:
        for name in columns.names:
            only(name in step.categories, f"OneHotEncoder(categories=...): the feature {name!r} has none")
    # The order in which River's dict has them. A NaN among them is equal to nothing.
    names = [name for name in step._zero_dict if name in encoded and not math.isnan(encoded[name][1])]
    if step.drop_first and names:
        names.remove(min(names))
    only(bool(names) or step.categories is None, "OneHotEncoder: no class is left")
    if not names:
        # Nothing was seen yet: one column that nothing was learned about, since a tensor needs one.
        return Columns(graph.repeated(0.0, columns.tensor), (("OneHotEncoder", "nothing seen"),))
    source = graph.node("Gather", columns.tensor, graph.integers(*(encoded[name][0] for name in names)), axis=1)
    codes = graph.double(np.array([[encoded[name][1] for name in names]]))
    return Columns(graph.as_double(graph.node("Equal", source, codes)), tuple(names))


@transformer(preprocessing.OrdinalEncoder)
def ordinal_encoder(step: Any, columns: Columns, graph: Graph) -> Columns:
    """The number of the class; `unknown_value` for one that was not seen."""
    only(
        step.unknown_value is not None,
        "OrdinalEncoder(unknown_value=None): an unseen class would be no number; give it one",
    )
    if step.categories is not None:
        for name in columns.names:
            only(name in step.categories, f"OrdinalEncoder(categories=...): the feature {name!r} has none")
    unknown = float(step.unknown_value)
    # One entry for each class: its column, its code, the number it stands for.
    entries = [
        (i, _number("OrdinalEncoder", name, code), float(number))
        for i, name in enumerate(columns.names)
        for code, number in step.values.get(name, {}).items()
    ]
    nothing = graph.node(
        "Mul", graph.repeated(1.0, columns.tensor), graph.double(np.full((1, len(columns.names)), unknown))
    )
    if not entries:
        return Columns(nothing, columns.names)
    source = graph.node("Gather", columns.tensor, graph.integers(*(i for i, _, _ in entries)), axis=1)
    equal = graph.node("Equal", source, graph.double(np.array([[code for _, code, _ in entries]])))
    # At most one entry of a column is met, so each sum has one term and is exact.
    steps = np.zeros((len(entries), len(columns.names)))
    for row, (i, _, number) in enumerate(entries):
        steps[row, i] = number - unknown
    return Columns(
        graph.node("Add", graph.node("MatMul", graph.as_double(equal), graph.double(steps)), graph.double(unknown)),
        columns.names,
    )


def _number(encoder: str, feature: Any, code: Any) -> float:
    try:
        return float(code)
    except (TypeError, ValueError):
        raise UnsupportedModelError(f"{encoder}: the class {code!r} of {feature!r} is not a number") from None
