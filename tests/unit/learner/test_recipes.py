"""The saved state of a recipe goes on to the bit."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import compose, forest, linear_model, neighbors, optim, preprocessing, tree

from headrace.learner.errors import ModelDivergedError, SnapshotError, UnsupportedRecipeError
from headrace.learner.recipes import declared, recognise
from headrace.learner.river_recipe import sampled
from headrace.pipeline import Model

NAMES = ("amount", "night", "count", "rate")


def scaled(**options: Any) -> Any:
    regression = linear_model.LogisticRegression(optim.SGD(0.05), **options)
    return preprocessing.StandardScaler() | regression


def rows(count: int, seed: int = 0) -> tuple[list[list[float]], list[bool]]:
    random = np.random.default_rng(seed)
    values = (random.standard_normal((count, len(NAMES))) * [50, 1, 7, 0.01]).astype(np.float32)
    return values.tolist(), (values[:, 0] + 10 * random.standard_normal(count) > 0).tolist()


@pytest.mark.parametrize(
    "build",
    [
        scaled,
        lambda: linear_model.LogisticRegression(optim.SGD(0.05)),
        lambda: scaled(l2=0.1),
        lambda: preprocessing.StandardScaler(with_std=False) | linear_model.LogisticRegression(optim.SGD(1e-4)),
        lambda: scaled(loss=optim.losses.Log(weight_pos=5)),
        lambda: (
            preprocessing.StandardScaler()
            | linear_model.LogisticRegression(optim.SGD(optim.schedulers.InverseScaling(0.05)), intercept_lr=0.1)
        ),
    ],
    ids=["scaled", "bare", "l2", "centred", "weighted", "decaying-rate"],
)
def test_learns_as_river_does_to_the_bit(build: Any) -> None:
    """Whole in River's own loop; and here, saved and restored after every few rows."""
    values, labels = rows(600)
    river = build()
    for row, label in zip(values, labels, strict=True):
        river.learn_one(dict(zip(NAMES, row, strict=True)), label)
    probe, _ = rows(50, seed=1)
    expected = [river.predict_proba_one(dict(zip(NAMES, row, strict=True)))[True] for row in probe]

    recipe = recognise(build())
    for start in range(0, 600, 150):
        recipe.learn(values[start : start + 150], labels[start : start + 150], NAMES)
        state = json.loads(json.dumps(recipe.state()))
        recipe = recognise(build())
        recipe.restore(state)
        assert recipe.state() == state
    assert recipe.score(probe, NAMES).tolist() == expected
    assert recipe.state() == recognise(river).state()


def test_features_of_unequal_counts_learn_as_river_does() -> None:
    values, labels = rows(50)
    river, other = scaled(), scaled()
    for model in (river, other):
        model.learn_one({NAMES[0]: 1.5}, True)
    recipe = recognise(other)
    recipe.learn(values, labels, NAMES)
    for row, label in zip(values, labels, strict=True):
        river.learn_one(dict(zip(NAMES, row, strict=True)), label)
    assert recipe.state() == recognise(river).state()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 80))
def test_a_restored_recipe_goes_on_to_the_bit(seed: int, cut: int) -> None:
    values, labels = rows(80, seed)
    whole = recognise(scaled())
    whole.learn(values, labels, NAMES)
    first, second = recognise(scaled()), recognise(scaled())
    first.learn(values[:cut], labels[:cut], NAMES)
    second.restore(json.loads(json.dumps(first.state())))
    second.learn(values[cut:], labels[cut:], NAMES)
    assert second.state() == whole.state()


def test_scores_are_taken_before_anything_of_the_row_is_learned() -> None:
    values, labels = rows(40)
    recipe, river = recognise(scaled()), scaled()
    scores = recipe.learn(values, labels, NAMES)
    for row, label, score in zip(values, labels, scores, strict=True):
        x = dict(zip(NAMES, row, strict=True))
        assert score == pytest.approx(river.predict_proba_one(x)[True], abs=1e-15)
        river.learn_one(x, label)
    assert scores[0] == 0.5


def test_fingerprint_tells_recipes_apart() -> None:
    recipes = [
        scaled(),
        scaled(l2=0.1),
        linear_model.LogisticRegression(optim.SGD(0.05)),
        preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.06)),
    ]
    assert len({recognise(model).fingerprint for model in recipes}) == len(recipes)
    assert recognise(scaled()).fingerprint == recognise(scaled()).fingerprint
    learned = recognise(scaled())
    before = learned.fingerprint
    learned.learn(*rows(10), NAMES)
    assert recognise(learned.model).fingerprint == before


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: preprocessing.StandardScaler() | neighbors.KNNClassifier(), "KNNClassifier has no ONNX form"),
        (preprocessing.StandardScaler, "the recipe cannot be served: StandardScaler"),
        (compose.Pipeline, "an empty pipeline"),
        (lambda: linear_model.LogisticRegression(initializer=optim.initializers.Normal()), r"Normal\(seed=None\)"),
        (lambda: forest.ARFClassifier(n_models=3), r"ARFClassifier\(seed=None\)"),
        (
            lambda: linear_model.LogisticRegression(optim.SGD(random.random()), l1=0.1),
            "another one each time it is built",
        ),
    ],
)
def test_an_unknown_recipe_is_refused_by_name(build: Any, named: str) -> None:
    with pytest.raises(UnsupportedRecipeError, match=named):
        declared(Model("one", build), NAMES)


@pytest.mark.parametrize(
    ("options", "build", "named"),
    [
        ({"class_weights": {True: 2}}, linear_model.PAClassifier, "class_weights: PAClassifier learns rows without"),
        (
            {"class_weights": {True: 2}},
            lambda: preprocessing.StandardScaler() | linear_model.PAClassifier(),
            "class_weights: PAClassifier",
        ),
        ({"negative_sampling": 0.5}, linear_model.LinearRegression, "negative_sampling needs a classifier"),
        ({"reset_on_drift": 0.5}, linear_model.LinearRegression, "reset_on_drift needs a classifier"),
        ({"calibration": "platt"}, linear_model.LinearRegression, "calibration needs a classifier"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_by_name(options: Any, build: Any, named: str) -> None:
    with pytest.raises(UnsupportedRecipeError, match=named):
        declared(Model("one", build, **options), NAMES)


def test_options_are_in_the_fingerprint() -> None:
    options: list[dict[str, Any]] = [
        {},
        {"class_weights": {True: 20}},
        {"class_weights": {True: 10}},
        {"class_weights": {False: 20}},
        {"negative_sampling": 0.5},
        {"negative_sampling": 0.25},
        {"reset_on_drift": 0.002},
        {"calibration": "platt"},
        {"calibration": "platt", "class_weights": {True: 20}},
    ]
    assert len({declared(Model("one", scaled, **one), NAMES).fingerprint for one in options}) == len(options)


def test_class_weights_are_the_weights_of_river() -> None:
    values, labels = rows(300)
    recipe = declared(Model("one", scaled, class_weights={True: 20.0}), NAMES)
    recipe.learn(values, labels, NAMES)
    river = scaled()
    for row, label in zip(values, labels, strict=True):
        river.learn_one(dict(zip(NAMES, row, strict=True)), label, w=20.0 if label else 1.0)
    expected = [river.predict_proba_one(dict(zip(NAMES, row, strict=True)))[True] for row in values]
    assert recipe.score(values, NAMES).tolist() == expected


def test_sampled_negatives_are_left_out_and_the_probability_corrected() -> None:
    """Exactly: the odds of the sample times its share, whatever learned it."""
    values, labels = rows(2000)
    ids = [str(number) for number in range(len(values))]
    recipe = declared(Model("one", scaled, negative_sampling=0.25), NAMES)
    recipe.learn(values, labels, NAMES, ids)
    river, learned = scaled(), 0
    for row, label, event_id in zip(values, labels, ids, strict=True):
        if label or sampled(event_id, 0.25):
            river.learn_one(dict(zip(NAMES, row, strict=True)), label)
            learned += not label
    assert learned == pytest.approx(0.25 * (2000 - sum(labels)), rel=0.15)
    given = np.array([river.predict_proba_one(dict(zip(NAMES, row, strict=True)))[True] for row in values])
    odds = 0.25 * given / (1 - given)
    assert recipe.score(values, NAMES) == pytest.approx(odds / (1 + odds), rel=1e-12)
    with pytest.raises(ValueError, match="event ids are needed"):
        recipe.learn(values, labels, NAMES)


def test_platt_scaling_undoes_what_class_weights_shift() -> None:
    values, labels = rows(6000)
    shifted, calibrated = (
        declared(Model("one", scaled, class_weights={True: 20.0}, calibration=calibration), NAMES)
        for calibration in (None, "platt")
    )
    rate = np.mean(labels[3000:])
    found = [one.learn(values, labels, NAMES)[3000:].mean() for one in (shifted, calibrated)]
    assert abs(found[0] - rate) > 0.05
    assert abs(found[1] - rate) < 0.02


def test_absent_features_are_left_out_of_the_row_of_a_tree() -> None:
    values, labels = rows(400)
    holes = [[math.nan if (i + j) % 7 == 0 else v for j, v in enumerate(row)] for i, row in enumerate(values)]
    recipe = recognise(tree.HoeffdingTreeClassifier(grace_period=50), NAMES)
    assert recipe.knows_absence
    recipe.learn(holes, labels, NAMES)
    river = tree.HoeffdingTreeClassifier(grace_period=50)
    for row, label in zip(holes, labels, strict=True):
        river.learn_one({name: v for name, v in zip(NAMES, row, strict=True) if not math.isnan(v)}, label)
    expected = [river.predict_proba_one(dict(zip(NAMES, row, strict=True)))[True] for row in values]
    assert recipe.score(values, NAMES).tolist() == expected
    assert not recognise(scaled()).knows_absence


def test_a_diverged_model_is_not_saved() -> None:
    model = scaled()
    model["LogisticRegression"].intercept = float("nan")
    with pytest.raises(ModelDivergedError, match="intercept is nan"):
        recognise(model).state()


@pytest.mark.parametrize("damage", ["kind", "scaler", "regression"])
def test_a_state_that_does_not_fit_is_refused(damage: str) -> None:
    recipe = recognise(scaled())
    recipe.learn(*rows(5), NAMES)
    state = recipe.state()
    del state[damage]
    with pytest.raises(SnapshotError):
        recognise(scaled()).restore(state)
