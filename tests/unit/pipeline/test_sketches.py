"""Sketches over many values: within what they promise, and equal to their definition."""

from __future__ import annotations

import bisect
import math

import numpy as np
import pytest

from headrace.pipeline import EventColumns, Integer, Money, Text
from headrace.pipeline.aggregations import definitions
from headrace.pipeline.aggregations.definitions import Asked, CoveredEvent
from headrace.pipeline.aggregations.lanes import cell_lane, value_lane
from headrace.pipeline.aggregations.measures import Selection
from headrace.pipeline.aggregations.sketches import Bins, Registers, bin_values, bins, distinct_counts, quantiles

SIZES = (0, 1, 2, 10, 100, 1000, 5000, 60_000)


def asked(share: float = 0.0) -> Asked:
    return Asked(0, 0, 1, 0, share, -1.0)


@pytest.mark.parametrize("kind", ["text", "integer"])
def test_a_distinct_count_is_within_its_error_and_equals_its_definition(kind: str) -> None:
    values = np.random.default_rng(7).integers(-(2**40), 2**40, max(SIZES))
    field = Text("v") if kind == "text" else Integer("v")
    events = EventColumns([""] * len(values), values, {"v": [str(v) for v in values]}, {"v": values.astype(np.float64)})
    cells = Registers(Selection(cell_lane(field))).cell_of(lambda _: cell_lane(field).values(events))
    queries = np.repeat(np.arange(len(SIZES)), SIZES)
    twice = np.concatenate([np.concatenate([cells[:size] for size in SIZES]), cells[:60_000]])
    groups, merged, _ = Registers(Selection()).merge(
        np.concatenate([queries, np.full(60_000, len(SIZES) - 1)]), twice, np.ones(len(twice), np.int64)
    )
    found = distinct_counts(groups, merged, len(SIZES))
    for size, estimate in zip(SIZES, found.tolist(), strict=True):
        assert abs(estimate - size) <= 0.02 * size + (0.03 * size if size > 100 else 0)
        those = [CoveredEvent(0, 0, str(v) if kind == "text" else v) for v in values[:size].tolist()]
        assert estimate == pytest.approx(definitions.distinct(those, asked()), rel=1e-12)


def test_a_bin_is_within_one_percent_of_its_values() -> None:
    random = np.random.default_rng(1)
    values = np.unique(np.concatenate([np.arange(-3000, 3000), np.exp(random.uniform(0, 36.7, 5000)).astype(np.int64)]))
    values = np.concatenate([values, -values, [2**53, -(2**53)]])
    assert (np.abs(bin_values(bins(values)) - values) <= 0.01 * np.abs(values) * (1 + 1e-12)).all()
    assert (np.diff(bins(np.sort(values))) >= 0).all()
    powers = [101**i // 99**i for i in range(1840)]
    borders = np.array([one + step for one in powers if one < 2**53 for step in (0, 1)])
    assert (bins(borders) - 2**12 - 1).tolist() == [bisect.bisect_left(powers, one) for one in borders.tolist()]
    assert 0 < bins(np.array([-(2**53)]))[0] < bins(np.array([2**53]))[0] < 2**13


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95, 1.0])
def test_a_quantile_equals_its_definition_and_is_within_one_percent(share: float) -> None:
    random = np.random.default_rng(3)
    sizes = [0, 1, 2, 7, 1000]
    values = (random.normal(0, 1, sum(sizes)) * 10 ** random.uniform(0, 6, sum(sizes))).astype(np.int64)
    queries = np.repeat(np.arange(len(sizes)), sizes)
    measure = Bins(Selection(value_lane(Money("v"))))
    groups, cells, counts = measure.merge(queries, bins(values), np.ones(len(values), np.int64))
    found, there = quantiles(groups, cells, counts, len(sizes), share)
    assert there.tolist() == [size > 0 for size in sizes]
    for number, size in enumerate(sizes[1:], 1):
        those = values[queries == number]
        assert found[number] == definitions.quantile([CoveredEvent(0, 0, int(v)) for v in those], asked(share))
        exact = np.sort(those)[math.floor(share * (size - 1))]
        assert abs(found[number] - exact) <= 0.01 * abs(exact) + 1e-9
