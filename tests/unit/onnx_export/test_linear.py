"""The exported graph gives River's scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from river import linear_model, optim, preprocessing, utils

from headrace.onnx_export import export

THRESHOLDS = (0.25, 0.5, 0.75)
# Scales like those of card payments: an amount, two flags, counts and means over windows, rates near 0.
CARD_SCALES = np.array([53.0, 0.45, 0.4, 2.0, 53.0, 14.0, 53.0, 60.0, 53.0, 1.0, 0.01, 7.0, 0.01, 30.0, 0.01])


def names(width: int) -> list[str]:
    return [f"f{i}" for i in range(width)]


def river_scores(model: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    columns = names(rows.shape[1])
    return np.array([model.predict_proba_one(dict(zip(columns, row, strict=True)))[True] for row in rows.tolist()])


def onnx_scores(model: Any, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(export(model, names(rows.shape[1])), providers=["CPUExecutionProvider"])
    (scores,) = session.run(["score"], {"features": rows})
    assert scores.dtype == np.float32
    assert scores.shape == (len(rows), 1)
    return np.asarray(scores[:, 0])


def scaled(learning_rate: float = 0.005) -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(learning_rate))


def learn(model: Any, rows: NDArray[np.float32], labels: NDArray[np.bool_]) -> Any:
    columns = names(rows.shape[1])
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        model.learn_one(dict(zip(columns, row, strict=True)), label)
    return model


def assert_same(model: Any, rows: NDArray[np.float32]) -> None:
    expected, got = river_scores(model, rows), onnx_scores(model, rows)
    assert np.abs(expected - got).max() <= 1e-6
    for threshold in THRESHOLDS:
        assert np.array_equal(expected >= threshold, got >= threshold)


@pytest.mark.parametrize(
    ("scales", "offsets"),
    [
        (np.ones(8), np.zeros(8)),
        (CARD_SCALES, CARD_SCALES),
        # Means far above the deviation: folding them into the intercept in float32 would lose everything.
        (np.full(6, 0.5), np.array([1e6, 3e5, -2e6, 1e4, 7e5, -1e5])),
        (np.logspace(-6, 6, 7), np.zeros(7)),
    ],
    ids=["unit", "card-payments", "far-from-zero", "twelve-decades"],
)
@pytest.mark.parametrize("learning_rate", [0.005, 0.5])
def test_scores_are_rivers(scales: NDArray[Any], offsets: NDArray[Any], learning_rate: float) -> None:
    random = np.random.default_rng(7)
    rows = (random.standard_normal((7_000, len(scales))) * scales + offsets).astype(np.float32)
    logits = ((rows[:2000] - offsets) / scales) @ random.standard_normal(len(scales))
    model = learn(scaled(learning_rate), rows[:2000], logits + random.standard_normal(2000) > 0)
    assert_same(model, rows[2000:])


def test_untrained_model_scores_a_half() -> None:
    rows = np.random.default_rng(1).standard_normal((100, 5)).astype(np.float32)
    assert np.all(onnx_scores(scaled(), rows) == 0.5)


def test_rows_around_the_threshold_do_not_flip() -> None:
    """Logits of a few 1e-9 around 0: nearest rounding would call some scores below 0.5 equal to it."""
    model = linear_model.LogisticRegression(optim.SGD(0.1))
    model.learn_one({"f0": 1.0}, True)
    rows = (np.arange(-10_000, 10_001, dtype=np.float64) * 1e-12).reshape(-1, 1).astype(np.float32)
    model.intercept = 0.0
    assert_same(model, rows)


def test_probability_is_0_or_1_beyond_30() -> None:
    model = linear_model.LogisticRegression()
    model._weights, model.intercept = utils.VectorDict({"f0": 1.0}), 0.0
    rows = np.array([[-31.0], [-29.0], [29.0], [31.0]], np.float32)
    got = onnx_scores(model, rows)
    assert (got[0], got[3]) == (0.0, 1.0)
    assert 0.0 < got[1] < 1e-12
    assert_same(model, rows)


finite = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), width=st.integers(1, 6), with_std=st.booleans(), with_scaler=st.booleans())
def test_any_rows(data: st.DataObject, width: int, with_std: bool, with_scaler: bool) -> None:
    row = st.lists(finite, min_size=width, max_size=width)
    rows = np.array(data.draw(st.lists(row, min_size=1, max_size=12)), np.float32)
    labels = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    regression = linear_model.LogisticRegression(optim.SGD(0.05))
    model = preprocessing.StandardScaler(with_std=with_std) | regression if with_scaler else regression
    learn(model, rows, labels)
    expected, got = river_scores(model, rows), onnx_scores(model, rows)
    # Where the products of a row are large and cancel, the score hangs on the order of summation, in River as well.
    scale = np.abs(rows.astype(np.float64)).max() * max(map(abs, [*regression.weights.values(), 1.0])) * width
    assert np.abs(expected - got).max() <= max(1e-6, scale * 1e-14)


def test_file_has_the_declared_form() -> None:
    model = onnx.load_from_string(export(scaled(), names(3), {"version": "000001"}))
    assert model.ir_version == 9
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17), ("ai.onnx.ml", 3)]
    (taken,), (given_back,) = model.graph.input, model.graph.output
    assert taken.name == "features"
    assert [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim] == ["N", 3]
    assert given_back.name == "score"
    assert [d.dim_param or d.dim_value for d in given_back.type.tensor_type.shape.dim] == ["N", 1]
    assert {p.key: p.value for p in model.metadata_props} == {"version": "000001"}


def test_export_is_deterministic() -> None:
    rows = np.random.default_rng(2).standard_normal((50, 4)).astype(np.float32)
    labels = rows[:, 0] > 0
    files = [export(learn(scaled(), rows, labels), names(4)) for _ in range(2)]
    assert files[0] == files[1]
