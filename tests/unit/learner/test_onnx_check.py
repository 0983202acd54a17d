"""A file that does not give River's scores is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from river import linear_model, optim, preprocessing

from headrace.learner import onnx_check
from headrace.learner.errors import ExportMismatchError
from headrace.onnx_export import export


def test_check() -> None:
    model = preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.05))
    rows = np.random.default_rng(0).standard_normal((300, 2)).astype(np.float32)
    for first, second in rows.tolist():
        model.learn_one({"a": first, "b": second}, first > second)
    scores = np.array([model.predict_proba_one({"a": a, "b": b})[True] for a, b in rows.tolist()])
    content = export(model, ("a", "b"))
    onnx_check.check(content, rows, scores, 0.5, version="000001")
    with pytest.raises(ExportMismatchError, match="000001 is not announced: on 1 of 300"):
        onnx_check.check(content, rows, scores + 2e-6 * (np.arange(300) == 7), 0.5, version="000001")
    with pytest.raises(ExportMismatchError, match="000002 is not announced: on 300 of 300"):
        onnx_check.check(content, rows, np.full(300, np.nan), 0.5, version="000002")
    model["LogisticRegression"].intercept += 0.01
    with pytest.raises(ExportMismatchError):
        onnx_check.check(export(model, ("a", "b")), rows, scores, 0.5, version="000003")
