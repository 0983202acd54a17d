"""Models that learned shares of one stream, merged."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import compose, linear_model, optim, preprocessing, tree

from headrace.learner.errors import UnsupportedRecipeError
from headrace.learner.merging import Share, check_mergeable, merge
from headrace.learner.merging_scalers import Moments, merge_moments
from headrace.learner.recipes import Recipe, declared, recognise
from headrace.pipeline import Model

NAMES = ("amount", "night", "count", "constant")


def logistic() -> Any:
    return linear_model.LogisticRegression(optim.SGD(0.05))


MODELS: dict[str, Callable[[], Any]] = {
    "logistic": logistic,
    "standard | logistic": lambda: preprocessing.StandardScaler() | logistic(),
    "centred | logistic": lambda: preprocessing.StandardScaler(with_std=False) | logistic(),
    "range | logistic": lambda: preprocessing.MinMaxScaler() | logistic(),
    "largest | logistic": lambda: preprocessing.MaxAbsScaler() | logistic(),
    "standard | linear": lambda: preprocessing.StandardScaler() | linear_model.LinearRegression(optim.SGD(0.01)),
    "standard | pa": lambda: preprocessing.StandardScaler() | linear_model.PAClassifier(C=0.01),
    "range | pa regressor": lambda: preprocessing.MinMaxScaler() | linear_model.PARegressor(C=0.01),
}

every_model = pytest.mark.parametrize("name", MODELS)


def rows(count: int, seed: int) -> tuple[list[list[float]], list[bool]]:
    chance = np.random.default_rng(seed)
    values = (chance.standard_normal((count, len(NAMES))) * [50, 1, 7, 0] + [90, 0, 3, 2]).astype(np.float32)
    return values.tolist(), (values[:, 0] + 10 * chance.standard_normal(count) > 90).tolist()


@functools.cache
def untrained(name: str) -> tuple[Recipe, Mapping[str, Any]]:
    recipe = recognise(MODELS[name](), NAMES)
    return recipe, recipe.state()


def fresh(name: str) -> Recipe:
    """A recipe of its own; made from one that is known to be served, which takes long to find out."""
    recipe, state = untrained(name)
    twin = copy.deepcopy(recipe)
    twin.restore(state)
    return twin


def learned(name: str, base: Mapping[str, Any] | None, count: int, seed: int) -> Share:
    recipe = fresh(name)
    if base is not None:
        recipe.restore(base)
    if count:
        recipe.learn(*rows(count, seed), NAMES)
    return Share(recipe.state(), count)


def same(name: str, state: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    recipe, _ = untrained(name)
    return bool(recipe.comparable(state) == recipe.comparable(other))


def scaler_of(recipe: Recipe) -> Any:
    return next(iter(recipe.model.steps.values()))


@every_model
def test_one_share_is_taken_as_it_is_to_the_bit(name: str) -> None:
    base = learned(name, None, 40, seed=1).state
    share = learned(name, base, 100, seed=2)
    idle = learned(name, base, 0, seed=0)
    recipe = fresh(name)
    merge(recipe, base, [idle, share, idle], NAMES)
    assert same(name, recipe.state(), share.state)
    merge(recipe, base, [idle, idle], NAMES)
    assert same(name, recipe.state(), base)


@every_model
def test_order_of_the_shares_does_not_matter_to_the_bit(name: str) -> None:
    base = learned(name, None, 40, seed=1).state
    shares = [learned(name, base, count, seed) for count, seed in ((17, 3), (0, 4), (120, 5), (60, 6))]
    states = []
    for order in itertools.permutations(shares):
        recipe = fresh(name)
        merge(recipe, base, order, NAMES)
        states.append(recipe.comparable(recipe.state()))
    assert all(state == states[0] for state in states)


@every_model
def test_in_units_of_the_features_the_merged_model_is_the_average_of_functions(name: str) -> None:
    base = learned(name, None, 40, seed=1).state
    shares = [learned(name, base, count, seed) for count, seed in ((50, 3), (150, 4))]
    recipe = fresh(name)
    outputs = []
    asked, _ = rows(30, seed=9)
    for share in shares:
        recipe.restore(share.state)
        outputs.append(raw(recipe, asked))
    merge(recipe, base, shares, NAMES, units="features")
    np.testing.assert_allclose(raw(recipe, asked), 0.25 * outputs[0] + 0.75 * outputs[1], rtol=1e-9, atol=1e-9)


@every_model
def test_weights_are_averaged_by_the_rows_learned(name: str) -> None:
    base = learned(name, None, 40, seed=1).state
    shares = [learned(name, base, count, seed) for count, seed in ((50, 3), (150, 4))]
    recipe = fresh(name)
    weights = []
    for share in shares:
        recipe.restore(share.state)
        weights.append(dict(final(recipe).weights))
    merge(recipe, base, shares, NAMES)
    for feature, weight in final(recipe).weights.items():
        assert weight == pytest.approx(0.25 * weights[0][feature] + 0.75 * weights[1][feature], rel=1e-14)


@every_model
def test_merged_model_goes_on_learning_and_is_saved_to_the_bit(name: str) -> None:
    base = learned(name, None, 40, seed=1).state
    recipe = fresh(name)
    merge(recipe, base, [learned(name, base, 30, seed) for seed in range(3)], NAMES)
    twin = fresh(name)
    twin.restore(recipe.state())
    for one in (recipe, twin):
        one.learn(*rows(100, seed=8), NAMES)
    assert same(name, recipe.state(), twin.state())


def final(recipe: Recipe) -> Any:
    """The linear part."""
    model = recipe.model
    return list(model.steps.values())[-1] if isinstance(model, compose.Pipeline) else model


def raw(recipe: Recipe, asked: Sequence[Sequence[float]]) -> Any:
    """What the linear part gives, before any link function."""
    *scalers, linear = recipe.model.steps.values() if isinstance(recipe.model, compose.Pipeline) else [recipe.model]
    answers = []
    for row in asked:
        x = dict(zip(NAMES, row, strict=True))
        for scaler in scalers:
            x = scaler.transform_one(x)
        answers.append(linear.intercept + sum(linear.weights.get(name, 0.0) * value for name, value in x.items()))
    return np.array(answers)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1000, 1000), max_size=30), min_size=2, max_size=6),
    st.lists(st.floats(-1000, 1000), max_size=30),
    st.floats(-1e4, 1e4),
)
def test_moments_are_those_of_all_rows(shares: list[list[float]], base: list[float], shift: float) -> None:
    merged = merge_moments(of(base, shift), [of(base + share, shift) for share in shares])
    every = of(base + [value for share in shares for value in share], shift)
    size = max(1.0, abs(every.mean))
    assert merged.count == every.count
    assert merged.mean == pytest.approx(every.mean, abs=1e-12 * size)
    assert merged.variance == pytest.approx(every.variance, abs=1e-12 * max(1.0, every.variance, size * size))


def of(values: Sequence[float], shift: float) -> Moments:
    if not values:
        return Moments(0, 0.0, 0.0)
    shifted = np.array(values, np.longdouble) + np.longdouble(shift)
    return Moments(len(values), float(shifted.mean()), float(shifted.var()))


@pytest.mark.parametrize("name", ["standard | logistic", "range | logistic", "largest | logistic"])
def test_scaler_is_that_of_one_learner_over_all_rows_through_many_rounds(name: str) -> None:
    chance = random.Random(5)
    merged, alone = fresh(name), fresh(name)
    base = merged.state()
    for number in range(20):
        shares = [learned(name, base, chance.randrange(40), seed=100 + 10 * number + shard) for shard in range(4)]
        for shard, share in enumerate(shares):
            alone.learn(*rows(share.learned, seed=100 + 10 * number + shard), NAMES)
        merge(merged, base, shares, NAMES)
        base = merged.state()
    one, other = scaler_of(merged), scaler_of(alone)
    if name.startswith("standard"):
        assert one.counts == other.counts
        for feature in NAMES:
            assert one.means[feature] == pytest.approx(other.means[feature], rel=1e-12, abs=1e-12)
            assert one.vars[feature] == pytest.approx(other.vars[feature], rel=1e-12, abs=1e-12)
    elif name.startswith("range"):
        assert {f: (one.min[f].get(), one.max[f].get()) for f in NAMES} == {
            f: (other.min[f].get(), other.max[f].get()) for f in NAMES
        }
    else:
        assert {f: one.abs_max[f].get() for f in NAMES} == {f: other.abs_max[f].get() for f in NAMES}


def test_steps_of_all_shares_count_once() -> None:
    name = "logistic"
    base = learned(name, None, 40, seed=1).state
    recipe = fresh(name)
    merge(recipe, base, [learned(name, base, 10, seed) for seed in range(3)], NAMES)
    assert recipe.model.optimizer.n_iterations == 70


def test_sampled_negatives_are_merged_too() -> None:
    model = Model("sampled", MODELS["standard | logistic"], negative_sampling=0.5)
    recipe = declared(model, NAMES)
    check_mergeable(recipe.model)
    base, shares = recipe.state(), []
    for seed in range(2):
        one = declared(model, NAMES)
        one.learn(*rows(50, seed), NAMES, [f"{seed}-{number}" for number in range(50)])
        shares.append(Share(one.state(), 50))
    merge(recipe, base, shares, NAMES)
    weights = json.loads(json.dumps(recipe.model.classifier["LogisticRegression"].weights))
    assert set(weights) == set(NAMES)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (tree.HoeffdingTreeClassifier(), "HoeffdingTreeClassifier"),
        (linear_model.LogisticRegression(optim.Adam()), "LogisticRegression(optimizer=Adam)"),
        (linear_model.LogisticRegression(optim.SGD(0.1), l1=0.5), "LogisticRegression(l1=0.5)"),
        (preprocessing.StandardScaler(window_size=10) | logistic(), "StandardScaler(window_size=10)"),
        (preprocessing.OneHotEncoder() | logistic(), "OneHotEncoder"),
        (
            preprocessing.StandardScaler() | preprocessing.MinMaxScaler() | logistic(),
            "StandardScaler before MinMaxScaler",
        ),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(model: Any, named: str) -> None:
    with pytest.raises(UnsupportedRecipeError) as refused:
        check_mergeable(model)
    assert str(refused.value).startswith(f"{named} cannot be learned in shards")
