"""Terms are added in River's order: where large ones cancel, what is left depends on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from river import linear_model, naive_bayes, utils

from headrace.onnx_export import export
from tests.unit.onnx_export.comparing import features, onnx_scores

NAMES = ("a", "b", "c", "d", "e")
# In doubles 1e16 + 1 is 1e16, so nearly every order of these has a sum of its own.
TERMS = (1e16, 1.0, -1e16, 3.0, 2.5)


def linear_regression(weights: dict[str, float]) -> Any:
    model = linear_model.LinearRegression()
    model._weights = utils.VectorDict(weights)
    return model


def pa_regressor(weights: dict[str, float]) -> Any:
    model = linear_model.PARegressor()
    model.weights.update(weights)
    return model


def orders() -> list[list[int]]:
    random = np.random.default_rng(3)
    return [random.permutation(len(TERMS)).tolist() for _ in range(40)]


@pytest.mark.parametrize("build", [linear_regression, pa_regressor])
@pytest.mark.parametrize("surplus", [-1, 0, 1], ids=["a-weight-less", "as-many", "a-weight-more"])
def test_order(build: Callable[[dict[str, float]], Any], surplus: int) -> None:
    """The weights were learned in another order than that of the columns, and are one more or less."""
    found = set()
    for order in orders():
        weights = {NAMES[i]: TERMS[i] for i in order}
        if surplus < 0:
            del weights["d"]
        elif surplus > 0:
            weights["z"] = 7.0
        model = build(weights)
        for columns in (NAMES, NAMES[::-1], tuple(NAMES[i] for i in reversed(order))):
            row = np.ones((1, len(columns)), np.float32)
            expected = model.predict_one(features(row[0].tolist(), columns))
            assert float(onnx_scores(export(model, columns), row)[0]) == expected
            found.add(expected)
    assert len(found) > 3


def test_order_in_naive_bayes() -> None:
    """A batch of one and a batch of many give the same bits, whatever the number of features."""
    random = np.random.default_rng(1)
    names = tuple(f"f{i}" for i in range(33))
    rows = random.standard_normal((40, len(names))).astype(np.float32)
    model = naive_bayes.GaussianNB()
    for row in rows.tolist():
        model.learn_one(features(row, names), row[0] > 0)
    content = export(model, names)
    whole = onnx_scores(content, rows)
    assert [float(onnx_scores(content, rows[i : i + 1])[0]) for i in range(40)] == whole.tolist()
