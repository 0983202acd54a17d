from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from headrace.features.data_quality import MAX_CATEGORIES, MAX_SAMPLE, DataQuality, DistinctEstimate, FieldQuality
from headrace.features.metrics import DataQualityCollector
from headrace.pipeline import EventColumns, EventSchema, Number, Text

SCHEMA = EventSchema(Text("customer"), Text("channel", optional=True), Number("amount", optional=True))

Row = tuple[str, str, float]
rows = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["", "web", "shop"]), st.sampled_from([math.nan, -1.5, 0.0, 7.0]))
)


def columns(rows: list[Row]) -> EventColumns:
    return EventColumns.from_rows(
        SCHEMA,
        [str(i) for i in range(len(rows))],
        [1] * len(rows),
        [row[:2] for row in rows],
        [row[2:] for row in rows],
    )


def observed(*batches: list[Row]) -> dict[str, FieldQuality]:
    quality = DataQuality(SCHEMA, ["customer"])
    for batch in batches:
        quality.observe(columns(batch))
    return {one.name: one for one in quality.summary()}


@given(batches=st.lists(rows))
def test_statistics_are_those_of_all_rows(batches: list[list[Row]]) -> None:
    every = [row for batch in batches for row in batch]
    amounts = [amount for _, _, amount in every if not math.isnan(amount)]
    channels = [channel for _, channel, _ in every if channel]
    found = observed(*batches)
    assert found["amount"] == FieldQuality(
        "amount",
        len(amounts),
        len(every) - len(amounts),
        {},
        min(amounts, default=None),
        max(amounts, default=None),
    )
    assert found["customer"] == FieldQuality("customer", len(every), 0, {}, distinct=len({row[0] for row in every}))
    kinds = len(set(channels))
    assert found["channel"] == FieldQuality(
        "channel", len(channels), len(every) - len(channels), {}, distinct=kinds, new=kinds
    )


def test_what_is_refused_counts_for_its_field() -> None:
    quality = DataQuality(SCHEMA, ["customer"])
    for name, reason in [
        ("amount", "out_of_range"),
        ("amount", "out_of_range"),
        ("amount", "missing_field"),
        ("event_id", "missing_field"),
        ("", "undecodable"),
        # Whatever a producer names its fields: there are never more names than the schema has.
        *((f"made_up_{i}", "unknown_field") for i in range(50)),
    ]:
        quality.refuse(name, reason)
    refused = {one.name: one.refused for one in quality.summary()}
    assert refused == {
        "customer": {},
        "channel": {},
        "amount": {"out_of_range": 2, "missing_field": 1},
        "event_id": {"missing_field": 1},
        "event_time_us": {},
        "": {"undecodable": 1, "unknown_field": 50},
    }


def test_categories_beyond_what_is_remembered_stay_new() -> None:
    many = [("a", f"channel {i}", 0.0) for i in range(MAX_CATEGORIES + 10)]
    found = observed(many, many[-10:], many[:10])
    again = found["channel"].new
    assert again is not None
    # Ten are forgotten, and each of their events is new; which ones does not matter.
    assert MAX_CATEGORIES + 10 <= again <= MAX_CATEGORIES + 30
    quality = DataQuality(SCHEMA, ["customer"])
    for start in range(0, 20_000, 500):
        quality.observe(columns([("a", f"channel {i}", 0.0) for i in range(start, start + 500)]))
    (channel,) = [one for one in quality.summary() if one.name == "channel"]
    assert channel.new == 20_000


@pytest.mark.parametrize("different", [1, 100, MAX_SAMPLE, 3 * MAX_SAMPLE, 200_000])
def test_distinct_values_are_estimated(different: int) -> None:
    estimate = DistinctEstimate()
    values = [f"id-{different}-{i}" for i in range(different)]
    for start in range(0, different, 5000):
        estimate.add(values[start : start + 5000])
    estimate.add(random.Random(3).choices(values, k=2000))
    assert len(estimate.sample) <= MAX_SAMPLE
    if different <= MAX_SAMPLE:
        assert estimate.count == different
    else:
        # The hash differs between processes; seven standard deviations.
        assert estimate.count == pytest.approx(different, rel=0.15)


def test_a_batch_without_a_single_value() -> None:
    found = observed([("a", "", math.nan)] * 3)
    assert (found["amount"].absent, found["amount"].minimum) == (3, None)
    assert (found["channel"].absent, found["channel"].distinct) == (3, 0)
    assert not np.isnan(found["amount"].values)


def test_metrics_show_what_the_summary_says() -> None:
    quality = DataQuality(SCHEMA, ["customer"])
    registry = CollectorRegistry()
    registry.register(DataQualityCollector(quality.summary))
    quality.observe(columns([("a", "web", 2.5), ("b", "", math.nan), ("b", "shop", 7.0)]))
    quality.refuse("amount", "out_of_range")
    quality.refuse("made_up", "unknown_field")

    def exported(name: str, field: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"headrace_features_field_{name}", {"field": field, **labels})

    assert [exported("values_total", name) for name in ("customer", "channel", "amount")] == [3, 2, 2]
    assert [exported("absent_total", name) for name in ("customer", "channel", "amount")] == [0, 1, 1]
    assert (exported("minimum", "amount"), exported("maximum", "amount")) == (2.5, 7.0)
    assert (exported("distinct_values", "customer"), exported("new_values_total", "customer")) == (2, None)
    assert (exported("distinct_values", "channel"), exported("new_values_total", "channel")) == (2, 2)
    assert exported("refused_total", "amount", reason="out_of_range") == 1
    assert exported("refused_total", "", reason="unknown_field") == 1
    assert exported("refused_total", "made_up", reason="unknown_field") is None
