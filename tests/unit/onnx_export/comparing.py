"""A River model beside its ONNX file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from river import cluster, ensemble

from headrace.onnx_export import export
from headrace.onnx_export.conversion import final_step

Rows = NDArray[np.float32]
THRESHOLDS = (0.25, 0.5, 0.75)
TOLERANCE = 1e-6
# Nearer to a threshold than this a double may fall on either side: exp and log differ in the last bits.
MARGIN = 1e-12


def features(row: Sequence[float], names: Sequence[str], *, drop_nan: bool = False) -> dict[str, float]:
    """A row as River gets it."""
    return {n: value for n, value in zip(names, row, strict=True) if not (drop_nan and math.isnan(value))}


def learn(model: Any, rows: Rows, targets: Sequence[Any], names: Sequence[str], *, drop_nan: bool = False) -> Any:
    """Let a model learn rows; `targets` are left out where it takes none."""
    for row, target in zip(rows.tolist(), targets, strict=True):
        x = features(row, names, drop_nan=drop_nan)
        if isinstance(final_step(model), cluster.KMeans):
            model.learn_one(x)
        else:
            model.learn_one(x, target)
    return model


def river_scores(model: Any, rows: Rows, names: Sequence[str], *, drop_nan: bool = False) -> NDArray[np.float64]:
    """What River answers: probability of True, value, or number of the cluster; 0 where it names none.

    Where River raises, an infinity for an overflow and NaN for a division by 0: what a file can say.
    """
    answers = []
    for row in rows.tolist():
        x = features(row, names, drop_nan=drop_nan)
        try:
            answers.append(_answer(model, x))
        except OverflowError:
            answers.append(math.inf)
        except ZeroDivisionError:
            answers.append(math.nan)
    return np.array(answers, np.float64)


def _answer(model: Any, x: dict[str, float]) -> float:
    last = final_step(model)
    if isinstance(last, ensemble.VotingClassifier):
        return float(model.predict_one(x) is True)
    if hasattr(last, "predict_proba_one"):
        return float(model.predict_proba_one(x).get(True, 0.0))
    value = model.predict_one(x)
    return 0.0 if value is None else float(value)


def onnx_scores(content: bytes, rows: Rows) -> NDArray[np.float32]:
    """What the file answers, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["score"], {"features": rows})
    assert scores.dtype == np.float32
    assert scores.shape == (len(rows), 1)
    return np.asarray(scores[:, 0])


def assert_same(model: Any, rows: Rows, names: Sequence[str], *, drop_nan: bool = False) -> None:
    """The file answers as River does: within 1e-6 of the size of the value, on the same side of every threshold."""
    # The file first: River draws random places for features that it has not seen, and so does the export.
    content = export(model, names)
    expected = river_scores(model, rows, names, drop_nan=drop_nan)
    got = onnx_scores(content, rows)
    with np.errstate(all="ignore"):
        near = np.abs(got - expected) <= TOLERANCE * np.maximum(1.0, np.abs(expected))
        # Both NaN, or infinite in float32 on the same side.
        nearest = expected.astype(np.float32)
    same = near | (np.isnan(expected) & np.isnan(got)) | (np.isinf(nearest) & (got == nearest))
    different = np.flatnonzero(~same)
    assert not len(different), f"row {rows[different[0]]}: River {expected[different[0]]}, file {got[different[0]]}"
    if hasattr(final_step(model), "predict_proba_one"):
        for threshold in THRESHOLDS:
            flipped = (expected >= threshold) != (got >= threshold)
            assert not np.any(flipped & (np.abs(expected - threshold) > MARGIN)), f"flipped at {threshold}"
