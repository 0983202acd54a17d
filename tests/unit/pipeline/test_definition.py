from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from headrace.pipeline import (
    DAY,
    HOUR,
    SECOND,
    Aggregation,
    Decision,
    DefinitionError,
    Entity,
    EventColumns,
    EventSchema,
    FeatureView,
    Label,
    Model,
    Money,
    Monitoring,
    Number,
    OnDemand,
    Pipeline,
    Text,
    count,
    decayed_count,
    decayed_mean,
    distinct,
    label_count,
    label_mean,
    label_rate,
    last,
    mean,
    minimum,
    one_hot,
    ordinal,
    quantile,
    std,
    total,
)
from headrace.pipeline.aggregations.lanes import Filter, checked_filter


def amount(events: EventColumns) -> np.ndarray:
    return events.numbers["cents"] / 100


def twice(events: EventColumns) -> np.ndarray:
    return events.numbers["cents"] / 50


SCHEMA = EventSchema(
    Text("customer"),
    Text("note", optional=True),
    Money("cents"),
    Number("weight", scale=1000),
    Number("tip", optional=True),
    Number("distance", maximum=1e15, scale=1000),
)


def dear(events: EventColumns) -> np.ndarray:
    return events.numbers["cents"] > LIMIT


LIMIT = 100


def made_by_a_list(limits: list[int]) -> Filter:
    def above(events: EventColumns) -> np.ndarray:
        return events.numbers["cents"] > limits[0]

    return above


def declare(**changes: Any) -> Pipeline:
    parts: dict[str, Any] = {
        "name": "shop",
        "event": SCHEMA,
        "entities": [Entity("customer", "customer")],
        "key": "customer",
        "features": [FeatureView("customer", count(DAY))],
        "label": Label(),
        "model": Model("none", lambda: None),
    }
    parts |= changes
    return Pipeline(parts.pop("name"), **parts)


def view(*aggregations: Aggregation) -> list[FeatureView]:
    return [FeatureView("customer", *aggregations)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Shop"}, "pipeline name 'Shop': lower-case letters, digits and hyphens, 63 at most"),
        ({"name": "s" * 64}, "lower-case letters, digits and hyphens, 63 at most"),
        ({"entities": [Entity("customer", "customer")] * 2}, "entity 'customer' is declared twice"),
        ({"entities": [Entity("the customer", "customer")]}, "entity 'the customer': a name must be an identifier"),
        ({"entities": [Entity("customer", "who")]}, "entity 'customer': 'who' must be a required text field"),
        ({"entities": [Entity("customer", "cents")]}, "entity 'customer': 'cents' must be a required text field"),
        ({"entities": [Entity("customer", "note")]}, "entity 'customer': 'note' must be a required text field"),
        ({"key": "shop"}, "key 'shop' is not an entity; declared are customer"),
        ({"entities": []}, "key 'customer' is not an entity; declared are none"),
        (
            {"features": [FeatureView("shop", count(DAY))]},
            "feature view of 'shop': no such entity; declared are ['cust",
        ),
        ({"features": view(count(DAY)) * 2}, "entity 'customer' has two feature views; put all into one"),
        ({"features": []}, "a pipeline needs at least one feature"),
        ({"features": [OnDemand("amount", amount), *view()]}, "feature view of 'customer' has no aggregations"),
        ({"features": view(count(DAY), count(DAY))}, "feature 'customer_count_1d' is declared twice"),
        ({"features": view(count(DAY, name="a b"))}, "feature 'customer_a b': a name must be an identifier"),
        ({"features": [OnDemand("a-b", amount)]}, "feature 'a-b': a name must be an identifier"),
        (
            {"features": view(Aggregation("x", "median", DAY))},
            "feature 'customer_x': operation 'median' is none of",
        ),
        ({"features": view(count(0))}, "feature 'customer_count_0d': window and hop must be more than 0"),
        ({"features": view(count(DAY, hop=0))}, "feature 'customer_count_1d': window and hop must be more than 0"),
        ({"features": view(count(DAY, delay=-1))}, "delay at least 0"),
        (
            {"features": view(count(DAY, hop=7 * SECOND))},
            "feature 'customer_count_1d': window and delay must be multiples of the hop",
        ),
        ({"features": view(count(DAY, delay=5, hop=HOUR))}, "window and delay must be multiples of the hop"),
        (
            {"features": view(label_rate(DAY, delay=0))},
            "feature 'customer_label_rate_1d': a label-derived feature needs a delay",
        ),
        (
            {"features": view(label_count(DAY, delay=0))},
            "feature 'customer_label_count_1d': a label-derived feature needs a delay",
        ),
        (
            {"features": view(total("price", DAY))},
            "feature 'customer_sum_price_1d': 'price' is not a numeric field of the event",
        ),
        (
            {"features": view(mean("customer", DAY))},
            "feature 'customer_mean_customer_1d': 'customer' is not a numeric field of the event",
        ),
        (
            {"features": view(std("distance", DAY))},
            "feature 'customer_std_distance_1d': 'distance' may be as large as 1e+18 in units of its scale; what is",
        ),
        (
            {"features": view(minimum("note", DAY))},
            "feature 'customer_min_note_1d': 'note' is not a numeric field of the event",
        ),
        (
            {"features": view(distinct("weight", DAY))},
            "feature 'customer_distinct_weight_1d': 'weight' is not a text or whole-number field of the event",
        ),
        (
            {"features": view(quantile("cents", 1.5, DAY))},
            "feature 'customer_p150_cents_1d': quantile 1.5: allowed is 0 to 1",
        ),
        (
            {"features": view(last("cents", DAY, default=math.nan))},
            "feature 'customer_last_cents_1d': default nan must be a finite number",
        ),
        ({"features": view(decayed_count(0, window=DAY))}, "half_life must be more than 0 microseconds"),
        (
            {"features": view(decayed_mean("cents", HOUR, window=501 * HOUR))},
            "feature 'customer_decayed_mean_cents_1h': the window has 501 half-lives; at most 500 are told apart",
        ),
        (
            {"features": view(label_mean(DAY, delay=DAY, where=dear))},
            "feature 'customer_label_mean_1d_dear': a label-derived feature takes no `where`: an outcome does not",
        ),
        (
            {"features": [one_hot("weight", ["a"])]},
            "encoding of 'weight': 'weight' is not a text or whole-number field of the event",
        ),
        ({"features": [ordinal("note", [])]}, "encoding of 'note': no categories are given; at least one is needed"),
        ({"features": [ordinal("note", ["a", "a"])]}, "encoding of 'note': a category is given twice"),
        ({"features": [one_hot("note", ["a", 1])]}, "encoding of 'note': category 1 is no text as 'note' is"),
        ({"features": [one_hot("note", ["a b", "a_b"])]}, "feature 'note_a_b' is declared twice"),
        (
            {"features": view(count(DAY, where=made_by_a_list([1])))},
            "where uses 'limits' of the function around it, a list; allowed are numbers, texts and tuples of them",
        ),
        (
            {"features": view(mean("distance", DAY))},
            "feature 'customer_mean_distance_1d': 'distance' may be as large as 1e+18 in units of its scale; what is ",
        ),
        ({"lateness": 0}, "lateness must be more than 0 microseconds"),
        ({"max_jump": -1}, "max_jump must be more than 0 microseconds"),
        ({"label": Label(horizon=0)}, "label horizon must be more than 0 microseconds"),
        (
            {"model": Model("none", lambda: None, Decision(threshold=1.5))},
            "decision threshold 1.5: allowed is 0 to 1",
        ),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        declare(**changes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_function_without_source_cannot_be_a_feature() -> None:
    made: dict[str, Any] = {}
    exec("def nowhere(events): return events.times", made)
    with pytest.raises(DefinitionError, match="on-demand feature 'nowhere': compute must be a plain function defined"):
        _ = declare(features=[OnDemand("nowhere", made["nowhere"])]).features_fingerprint


def test_features_are_named_after_their_entity_window_and_field() -> None:
    features = [
        OnDemand("amount", amount),
        FeatureView(
            "customer",
            count(DAY),
            mean("cents", 12 * HOUR),
            total("weight", 90 * SECOND),
            label_rate(7 * DAY, delay=DAY),
            count(10, hop=1),
        ),
        OnDemand("twice", twice),
    ]
    assert declare(features=features).feature_names == (
        "amount",
        "customer_count_1d",
        "customer_mean_cents_12h",
        "customer_sum_weight_90s",
        "customer_label_rate_7d",
        "customer_count_10us",
        "twice",
    )


def test_what_changes_a_vector_changes_the_fingerprint() -> None:
    base = declare(features=[OnDemand("amount", amount), *view(count(DAY), mean("cents", DAY))])
    different = [
        declare(features=[*view(count(DAY), mean("cents", DAY)), OnDemand("amount", amount)]),
        declare(features=[OnDemand("amount", twice), *view(count(DAY), mean("cents", DAY))]),
        declare(features=[OnDemand("amount", amount), *view(mean("cents", DAY), count(DAY))]),
        declare(features=[OnDemand("amount", amount), *view(count(DAY, hop=HOUR), mean("cents", DAY))]),
        declare(features=[OnDemand("amount", amount), *view(count(DAY), mean("cents", DAY, default=1.0))]),
        declare(
            features=[OnDemand("amount", amount), *view(count(DAY), mean("cents", DAY))],
            event=EventSchema(*SCHEMA.fields, Text("more")),
        ),
        declare(features=[OnDemand("amount", amount), *view(count(DAY, where=dear, name="count_1d"))]),
    ]
    prints = {base.features_fingerprint, *(pipeline.features_fingerprint for pipeline in different)}
    assert len(prints) == len(different) + 1
    assert base.schema_fingerprint == different[0].schema_fingerprint != different[-2].schema_fingerprint


def test_what_changes_no_vector_keeps_the_fingerprint() -> None:
    base = declare()
    for pipeline in (
        declare(name="other"),
        declare(monitoring=Monitoring(psi_threshold=0.5)),
        declare(model=Model("another", lambda: None, Decision(threshold=0.1))),
        declare(label=Label(horizon=DAY)),
        declare(lateness=HOUR),
    ):
        assert pipeline.features_fingerprint == base.features_fingerprint


def test_a_decision_follows_from_the_score() -> None:
    decision = Decision(threshold=0.3, above="block", below="pass", untrained="wait")
    assert [decision.decide(score, untrained=False) for score in (0.0, 0.29, 0.3, 1.0)] == [
        "pass",
        "pass",
        "block",
        "block",
    ]
    assert decision.decide(0.99, untrained=True) == "wait"


def test_numbers_are_bounded_so_that_sums_are_exact() -> None:
    assert (Number("n").minimum, Number("n").maximum) == (-(2**53), 2**53)
    assert Number("n", scale=1000).maximum == 2**53 / 1000
    assert Number("n", minimum=0).maximum == 2**53
    assert Number("n", maximum=math.inf).maximum == math.inf


def from_a_list(events: EventColumns) -> np.ndarray:
    return np.array([text == "a" for text in events.texts["customer"]])


def not_one_each(events: EventColumns) -> np.ndarray:
    return np.array([True])


def test_a_filter_gives_one_bool_per_event() -> None:
    events = EventColumns(["e", "f"], np.array([1, 2]), {"customer": ["a", "b"]}, {"cents": np.array([1.0, 2.0])})
    assert checked_filter(from_a_list, events).tolist() == [True, False]
    assert checked_filter(from_a_list, events.take(np.zeros(0, np.intp))).tolist() == []
    with pytest.raises(
        DefinitionError, match=r"where 'not_one_each' gives bool of shape \(1,\); it must give one bool"
    ):
        checked_filter(not_one_each, events)
    with pytest.raises(DefinitionError, match="where 'amount' gives float64 of shape"):
        checked_filter(amount, events)
