"""Labels that are numbers: learned as such, and measured as River measures them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from river import linear_model, metrics, optim, preprocessing, tree

from headrace.learner import onnx_check, snapshot
from headrace.learner.cohort import Cohort, Member
from headrace.learner.errors import ExportMismatchError, UnsupportedRecipeError
from headrace.learner.examples import OutcomeRecord, decode
from headrace.learner.learning import Learning
from headrace.learner.prequential import PrequentialMetrics
from headrace.learner.recipes import declared
from headrace.learner.versions import exported
from headrace.pipeline import Model
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import OUTCOME_KIND_LABELLED, Outcome, Prediction

NAMES = ("distance", "hour")
FINGERPRINT = 9
WINDOW = 100


def linear() -> Any:
    return preprocessing.StandardScaler() | linear_model.LinearRegression(optim.SGD(0.01))


def regression_tree() -> Any:
    return tree.HoeffdingTreeRegressor(grace_period=20)


def rides(count: int) -> list[OutcomeRecord]:
    """Minutes that rides took, by distance and hour."""
    chance = np.random.default_rng(5)
    rows = np.column_stack([chance.uniform(0, 20, count), chance.integers(0, 24, count)]).astype(np.float32)
    minutes = 2.5 * rows[:, 0] + np.abs(rows[:, 1] - 12) + chance.normal(0, 1, count)
    return [
        OutcomeRecord(
            0,
            index,
            index,
            Outcome(
                kind=OUTCOME_KIND_LABELLED,
                prediction=Prediction(event_id=f"{index:06d}", features=row, features_fingerprint=FINGERPRINT),
                label=Label(event_id=f"{index:06d}", value=value, label_time_us=index + 1),
            ).SerializeToString(),
        )
        for index, (row, value) in enumerate(zip(rows.tolist(), minutes.tolist(), strict=True))
    ]


@pytest.mark.parametrize("build", [linear, regression_tree])
def test_the_learner_is_rivers_own_loop(build: Any) -> None:
    records = rides(600)
    learning = Learning(declared(Model("minutes", build), NAMES, numeric=True), NAMES, FINGERPRINT, (0,))
    cohort = Cohort([Member("minutes", learning, challenger=False)])
    alone, absolute, squared = build(), metrics.MAE(), metrics.RMSE()
    for start in range(0, len(records), 70):
        cohort.learn(records[start : start + 70])
    for one in decode(records, FINGERPRINT, 2, numeric=True):
        x = dict(zip(NAMES, one.row, strict=True))
        said = alone.predict_one(x)
        absolute.update(one.label, said)
        squared.update(one.label, said)
        alone.learn_one(x, one.label)
    rows = [one.row for one in decode(records[-50:], FINGERPRINT, 2, numeric=True)]
    expected = [alone.predict_one(dict(zip(NAMES, row, strict=True))) for row in rows]
    assert learning.recipe.score(rows, NAMES).tolist() == expected
    found = learning.metrics.values()
    assert found["mean_absolute_error"] == pytest.approx(absolute.get(), rel=1e-12)
    assert found["root_mean_squared_error"] == pytest.approx(squared.get(), rel=1e-12)
    assert "positive_rate" not in found
    # The quarter of the spread that is left says that numbers were learned, not whether they are above a half.
    assert found["rolling_mean_absolute_error"] < 8


def test_metrics_go_on_from_a_snapshot() -> None:
    records = rides(300)
    whole, first = (
        Learning(declared(Model("minutes", linear), NAMES, numeric=True), NAMES, FINGERPRINT, (0,)) for _ in range(2)
    )
    examples = decode(records, FINGERPRINT, 2, numeric=True)
    for part in (examples[:200], examples[200:]):
        whole.learn(part)
    first.learn(examples[:200])
    stored = snapshot.decode(snapshot.encode(first.snapshot("000001", "000000")))
    second = Learning.restore(declared(Model("minutes", linear), NAMES, numeric=True), stored, FINGERPRINT)
    second.learn(examples[200:])
    assert second.metrics.values() == whole.metrics.values()
    assert second.metrics.state() == whole.metrics.state()


def test_rolling_metrics_are_those_of_the_newest() -> None:
    chance = np.random.default_rng(1)
    scores, labels = chance.normal(100, 20, 500), chance.normal(100, 20, 500)
    found = PrequentialMetrics(WINDOW, "value")
    for start in range(0, 500, 30):
        found.add(scores[start : start + 30], labels[start : start + 30])
    errors = (scores - labels)[-WINDOW:]
    values = found.values()
    assert values["rolling_count"] == WINDOW
    assert values["rolling_mean_absolute_error"] == pytest.approx(np.abs(errors).mean())
    assert values["rolling_root_mean_squared_error"] == pytest.approx(math.sqrt((errors**2).mean()))


def test_a_classifier_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedRecipeError, match="the label is a number, and LogisticRegression learns classes"):
        declared(Model("wrong", linear_model.LogisticRegression), NAMES, numeric=True)


def test_a_model_of_numbers_tells_labels_apart() -> None:
    """The same outcome is a class for one pipeline and a number for another."""
    (record,) = rides(1)
    assert decode([record], FINGERPRINT, 2)[0].label is True
    (number,) = decode([record], FINGERPRINT, 2, numeric=True)
    assert number.label == Outcome.FromString(record.value).label.value


def test_a_threshold_between_two_numbers_of_float32_is_no_flip() -> None:
    """Numbers are rounded to the nearest, so one a hair below the threshold may come out on it."""
    learning = Learning(declared(Model("minutes", linear), NAMES, numeric=True), NAMES, FINGERPRINT, (0,))
    learning.learn(decode(rides(300), FINGERPRINT, 2, numeric=True))
    content = exported(learning.recipe.model, "rides", learning.snapshot("000001", "000000"))
    scores = learning.recipe.score(learning.recent.tolist(), NAMES)
    served = scores.astype(np.float32).astype(np.float64)
    row = int(np.argmax(served - scores))
    assert served[row] > scores[row] + 1e-9
    onnx_check.check(content, learning.recent, scores, served[row], version="000001", numeric=True)
    with pytest.raises(ExportMismatchError):
        onnx_check.check(content, learning.recent, scores, served[row], version="000001")
    with pytest.raises(ExportMismatchError):
        onnx_check.check(content, learning.recent, scores + 1e-3, 0.5, version="000001", numeric=True)
