"""Every kind of model, whatever it learned, answers in its ONNX file as in River."""

from __future__ import annotations

import itertools
import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import datasets

from headrace.onnx_export import check, export
from tests.unit.onnx_export.case import NAMES, WIDTH, Case
from tests.unit.onnx_export.comparing import Rows, assert_same, learn, onnx_scores, river_scores
from tests.unit.onnx_export.every_model import CASES

pytestmark = [pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())]

CODES = np.array([0.0, 1.0, -1.0, 0.5, 2.0], np.float32)


def fits(model: Any, case: Case, rows: Rows, names: tuple[str, ...] = NAMES) -> None:
    assert_same(model, rows, names, drop_nan=case.knows_absence)


def learned(case: Case, rows: Rows, targets: list[Any], names: tuple[str, ...] = NAMES) -> Any:
    return learn(case.make(), rows, targets, names, drop_nan=case.knows_absence)


def random_rows(count: int, seed: int = 1) -> Rows:
    """Two columns of measurements, one of codes and one of amounts far from zero."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count, WIDTH)) * [1.0, 0.2, 1.0, 30.0] + [0.0, 0.4, 0.0, 500.0]
    rows[:, 2] = random.choice(CODES, count)
    return rows.astype(np.float32)


def targets_of(case: Case, rows: Rows, seed: int = 2) -> list[Any]:
    noise = np.random.default_rng(seed).standard_normal(len(rows))
    signal = rows[:, 0].astype(np.float64) + rows[:, 2]
    if case.kind == "regressor":
        return [float(value) for value in np.abs(3.0 * signal + 0.1 * noise)]
    return [bool(value) for value in signal + noise > 0.3]


@cache
def trained(case: Case) -> Any:
    """A model that no test changes."""
    rows = random_rows(50)
    return learned(case, rows, targets_of(case, rows))


@cache
def data_set(kind: str) -> tuple[tuple[str, ...], Rows, list[Any]]:
    """Names, rows and targets of a set that ships with River; numbers as float32 holds them."""
    pairs = list(itertools.islice(datasets.TrumpApproval() if kind == "regressor" else datasets.Phishing(), 330))
    names = tuple(pairs[0][0])
    rows = np.array([[x[name] for name in names] for x, _ in pairs], np.float32)
    return names, rows, [y for _, y in pairs]


def test_data_set(case: Case) -> None:
    names, rows, targets = (NAMES, random_rows(330), None) if case.only_names else data_set(case.kind)
    targets = targets or targets_of(case, rows)
    fits(learned(case, rows[:200], targets[:200], names), case, rows[200:], names)


def test_after_each_of_the_first_rows(case: Case) -> None:
    rows = random_rows(20)
    model, targets = case.make(), targets_of(case, rows)
    for done, more in ((0, 1), (1, 2), (2, 3), (3, 10)):
        model = learn(model, rows[done:more], targets[done:more], NAMES)
        fits(model, case, rows)


def test_untrained(case: Case) -> None:
    try:
        fits(case.make(), case, random_rows(8))
    except TypeError:
        # River subtracts None from None.
        assert "window" in repr(case.make())


@pytest.mark.parametrize("target", [False, True])
def test_one_class_only(case: Case, target: bool) -> None:
    rows = random_rows(24)
    fits(learned(case, rows[:16], [float(target) if case.kind == "regressor" else target] * 16), case, rows)


def test_constant_columns_and_new_values(case: Case) -> None:
    """What never varied while it was learned then does, codes come that were not seen, and so do large values."""
    rows = random_rows(60)
    rows[:, 0], rows[:, 2] = 0.25, 1.0
    model = learned(case, rows[:40], targets_of(case, random_rows(40)))
    rows[50:, 0] = np.linspace(-3.0, 3.0, 10, dtype=np.float32)
    rows[45:55, 2] = 7.0
    rows[55:, 3] = 1e9
    fits(model, case, rows)


def test_means_far_from_zero(case: Case) -> None:
    """Deviations of 0.5 beside means up to 2e6: what folds the means into an intercept in float32 loses everything."""
    rows = random_rows(200) * np.float32(0.5)
    targets = targets_of(case, rows * 2)
    rows = (rows + np.array([1e6, -2e6, 3e5, 1e4])).astype(np.float32)
    fits(learned(case, rows[:150], targets[:150]), case, rows[150:])


numbers = st.one_of(
    st.sampled_from(CODES.tolist()),
    st.floats(-1e3, 1e3, width=32, allow_subnormal=False),
)
extremes = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


def drawn_rows(data: st.DataObject, values: st.SearchStrategy[float], count: int) -> Rows:
    drawn = data.draw(st.lists(values, min_size=WIDTH * count, max_size=WIDTH * count))
    rows = np.array(drawn, np.float32).reshape(count, WIDTH)
    # An encoder of River takes −0 and 0 for two classes with one number.
    return rows + np.float32(0.0)


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_rows(case: Case, data: st.DataObject) -> None:
    rows = drawn_rows(data, numbers, data.draw(st.integers(1, 8)))
    flags = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    targets = [float(flag) for flag in flags] if case.kind == "regressor" else flags
    half = len(rows) // 2 + 1
    try:
        model = learned(case, rows[:half], targets[:half])
    except ZeroDivisionError:
        # River's Normalizer divides by the norm of a row of zeros.
        return
    fits(model, case, rows)


@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_extremes(case: Case, data: st.DataObject) -> None:
    """All that float32 holds, in rows that were learned and in rows that were not."""
    rows = drawn_rows(data, extremes, 4)
    targets = [1.0, 0.0] if case.kind == "regressor" else [True, False]
    try:
        model = learned(case, rows[:2] if case.extremes else random_rows(2), targets)
        river_scores(model, rows, NAMES)
    except (ArithmeticError, ValueError):
        # River itself gives up: a power or an exponential overflows.
        return
    if case.extremes:
        fits(model, case, rows)
    else:
        onnx_scores(export(model, NAMES), rows)


def test_missing_values(case: Case) -> None:
    model, rows = trained(case), random_rows(20, seed=5)
    rows[:10, 1] = np.nan
    rows[5:, 3] = np.nan
    if case.knows_absence:
        fits(model, case, rows)
        return
    rows[-1] = np.nan
    got = onnx_scores(export(model, NAMES), rows)
    assert not np.isinf(got).any()
    assert np.isnan(got[-1]) == case.answers_nan


def test_score_does_not_depend_on_the_batch(case: Case) -> None:
    rows = random_rows(60)
    content = export(trained(case), NAMES)
    whole = onnx_scores(content, rows)
    for size in (1, 7):
        assert np.array_equal(onnx_scores(content, rows[:size]), whole[:size])


def test_same_bytes_again(case: Case) -> None:
    rows = random_rows(40)
    targets = targets_of(case, rows)
    first, second = (learned(case, rows, targets) for _ in range(2))
    assert export(first, NAMES) == export(second, NAMES) == export(first, NAMES)


def test_check_takes_it_and_leaves_it_alone(case: Case) -> None:
    model = case.make()
    before = pickle.dumps(model)
    check(model, NAMES)
    assert pickle.dumps(model) == before
