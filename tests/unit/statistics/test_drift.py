from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from headrace.statistics.drift import Bins, compare, significant


def counts_of(reference: list[float], values: list[float]) -> list[int]:
    counts = Bins.of_reference(np.array(reference)).counts(np.array(values))
    return [int(count) for count in counts]


def test_continuous_values_fall_into_equal_bins() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    counts = Bins.of_reference(values, bins=10).counts(values)
    assert len(counts) == 11
    assert counts[:-1].tolist() == pytest.approx([1000] * 10, abs=2)
    assert counts[-1] == 0


def test_a_constant_feature_has_a_bin_for_its_value_and_room_on_both_sides() -> None:
    assert counts_of([3.0] * 50, [2.9, 3.0, 3.0, 3.1]) == [1, 2, 1, 0]


def test_a_binary_feature_has_a_bin_for_each_value_and_for_what_is_neither() -> None:
    assert counts_of([0.0] * 30 + [1.0] * 20, [-1, 0, 0, 0.5, 1, 2]) == [1, 2, 1, 1, 1, 0]


def test_a_heavy_value_has_its_own_bin_beside_quantiles_of_the_rest() -> None:
    random = np.random.default_rng(1)
    values = np.concatenate([np.zeros(6_000), random.exponential(size=4_000)])
    counts = Bins.of_reference(values, bins=10).counts(values)
    assert counts[1] == 6_000
    assert counts[2:-1].tolist() == pytest.approx([1000] * 4, abs=2)


def test_values_that_are_not_finite_share_the_last_bin() -> None:
    assert counts_of([1.0, np.nan], [np.nan, np.inf, -np.inf, 1.0]) == [0, 1, 0, 3]
    assert counts_of([np.nan], [np.nan, 1.0]) == [1, 1]


@example([-sys.float_info.max], [-sys.float_info.max, sys.float_info.max])
@given(st.lists(st.floats(), max_size=60), st.lists(st.floats(), max_size=60))
def test_every_value_falls_into_one_bin(reference: list[float], values: list[float]) -> None:
    bins = Bins.of_reference(np.array(reference, dtype=np.float64))
    assert bins.counts(np.array(values, dtype=np.float64)).sum() == len(values)
    assert (np.diff(bins.edges) > 0).all()


def test_equal_shares_are_no_drift() -> None:
    found = compare(np.array([100, 200, 300]), np.array([10, 20, 30]))
    assert found.psi == pytest.approx(0, abs=1e-3)
    assert found.p_value == pytest.approx(1)


def test_index_and_test_follow_their_definitions() -> None:
    reference, current = np.array([400, 300, 300]), np.array([100, 150, 250])
    p, q = current / 500, reference / 1000
    expected = float(((p - q) * np.log(p / q)).sum())
    found = compare(reference, current)
    assert found.psi == pytest.approx(expected, rel=0.01)
    assert found.p_value == pytest.approx(stats.chi2_contingency(np.stack([reference, current])).pvalue)


def test_bins_without_enough_rows_are_merged() -> None:
    # One row in a bin of its own says nothing: what is compared is the rest.
    assert compare(np.array([0, 1000, 0]), np.array([0, 999, 1])).psi == 0
    assert compare(np.array([0, 1000, 0]), np.array([0, 900, 100])).p_value < 1e-6


@pytest.mark.parametrize(("reference", "current"), [([0, 0], [1, 2]), ([1, 2], [0, 0]), ([9], [9])])
def test_nothing_to_compare_is_no_drift(reference: list[int], current: list[int]) -> None:
    found = compare(np.array(reference), np.array(current))
    assert (found.psi, found.p_value) == (0, 1)


def test_p_values_are_uniform_without_drift() -> None:
    random = np.random.default_rng(2)
    p_values = []
    for _ in range(400):
        reference = random.normal(size=7_000)
        bins = Bins.of_reference(reference)
        p_values.append(compare(bins.counts(reference), bins.counts(random.normal(size=1_000))).p_value)
    # The bins are made of the reference itself, which leaves it closer to its expectation, so p-values are rather high.
    assert np.mean(np.array(p_values) < 0.05) < 0.08


def test_false_discovery_control_agrees_with_scipy() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        p_values = random.random(12) ** 4
        expected = stats.false_discovery_control(p_values) <= 0.05
        assert significant(p_values, 0.05).tolist() == expected.tolist()
    assert significant(np.array([]), 0.05).tolist() == []
