"""The saved state of a recipe goes on to the bit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model, naive_bayes, optim, preprocessing

from headrace.learner.errors import ModelDivergedError, SnapshotError, UnsupportedRecipeError
from headrace.learner.recipes import recognise

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


def test_scores_are_taken_before_the_label() -> None:
    values, labels = rows(40)
    recipe, river = recognise(scaled()), scaled()
    scores = recipe.learn(values, labels, NAMES)
    for row, label, score in zip(values, labels, scores, strict=True):
        x = dict(zip(NAMES, row, strict=True))
        river["StandardScaler"].learn_one(x)
        assert score == pytest.approx(river.predict_proba_one(x)[True], abs=1e-15)
        river["LogisticRegression"].learn_one(river["StandardScaler"].transform_one(x), label)
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
    ("model", "named"),
    [
        (preprocessing.StandardScaler() | naive_bayes.GaussianNB(), "GaussianNB"),
        (preprocessing.MinMaxScaler() | linear_model.LogisticRegression(), "MinMaxScaler"),
        (linear_model.LogisticRegression(optim.Adam()), "Adam"),
        (linear_model.LogisticRegression(loss=optim.losses.Hinge()), "Hinge"),
        (linear_model.LogisticRegression(l1=0.1), "l1"),
        (linear_model.LogisticRegression(initializer=optim.initializers.Normal()), "Normal"),
        (linear_model.LogisticRegression(optim.SGD(optim.schedulers.Optimal(optim.losses.Log()))), "Optimal"),
        (preprocessing.StandardScaler(window_size=9) | linear_model.LogisticRegression(), "window_size"),
    ],
)
def test_an_unknown_recipe_is_refused_by_name(model: Any, named: str) -> None:
    with pytest.raises(UnsupportedRecipeError, match=named):
        recognise(model)


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
