"""What a pipeline costs, and what a change of it breaks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from headrace.pipeline import (
    DAY,
    HOUR,
    SECOND,
    Decision,
    Entity,
    EventColumns,
    EventSchema,
    FeatureView,
    Label,
    Model,
    Money,
    Number,
    OnDemand,
    Pipeline,
    Text,
    count,
    decayed_count,
    distinct,
    label_rate,
    mean,
    one_hot,
)
from headrace.pipeline.description import compare_definitions, describe_pipeline, describe_plan
from headrace.pipeline.state import compile_plan

FIELDS = (Text("user"), Text("shop"), Money("cents", maximum=10_000), Text("channel", optional=True))
VIEWS = (
    FeatureView("user", count(DAY, hop=HOUR), mean("cents", DAY, hop=HOUR), distinct("shop", DAY, hop=HOUR)),
    FeatureView("shop", count(DAY), label_rate(DAY, delay=DAY), decayed_count(HOUR)),
)


def dear(events: EventColumns) -> np.ndarray:
    return (events.numbers["cents"] > 100).astype(np.float64)


def cheap(events: EventColumns) -> np.ndarray:
    return (events.numbers["cents"] < 100).astype(np.float64)


def tipped(events: EventColumns) -> np.ndarray:
    return np.isnan(events.numbers["tip"]).astype(np.float64)


def declare(**changes: Any) -> Pipeline:
    parts: dict[str, Any] = {
        "name": "shop",
        "event": EventSchema(*FIELDS),
        "entities": [Entity("user", "user"), Entity("shop", "shop")],
        "key": "user",
        "features": [OnDemand("dear", dear), *VIEWS, one_hot("channel", ["web", "app"])],
        "label": Label(),
        "model": Model("none", lambda: None),
    }
    parts |= changes
    return Pipeline(parts.pop("name"), **parts)


def test_what_each_entity_costs() -> None:
    described = describe_plan(compile_plan(declare()))
    user, shop = described.entities
    assert [(lane.name, lane.dtype, lane.kind) for lane in user.lanes] == [
        ("cents", "<i4", "value"),
        ("shop#cell", "<u4", "cell"),
    ]
    assert (user.event_bytes, user.label_bytes, user.reads, user.edges) == (24, 0, 1, 2)
    assert (shop.event_bytes, shop.label_bytes, shop.reads, shop.edges) == (16, 32, 2, 4)
    assert (user.bucket_us, user.raw_us, user.retention_us) == (HOUR, DAY + HOUR, 2 * DAY + HOUR)
    assert (shop.bucket_us, shop.raw_us, shop.coarse_bound) == (0, shop.retention_us, 0)
    assert shop.retention_us == 3 * DAY + SECOND
    # 26 buckets with count, sum and at most all 4096 registers, in pieces of 16 of every 24 bytes.
    assert user.coarse_bound == -(-26 * (26 + 4096 * 4) // 16) * 24
    assert user.bytes_per_key(0) == user.coarse_bound + 24
    assert shop.bytes_per_key(1000) == pytest.approx(16 * 3001, rel=1e-3)
    assert described.reads == 3


def test_a_description_goes_through_json_and_back() -> None:
    described = json.loads(json.dumps(describe_pipeline(declare())))
    assert compare_definitions(described, declare()) == []


@pytest.mark.parametrize(
    ("changes", "breaking", "what"),
    [
        ({"name": "store"}, True, "name shop is now store"),
        ({"key": "shop"}, True, "key user is now shop"),
        ({"event": EventSchema(*FIELDS, Number("tip", optional=True))}, False, "event field tip is new"),
        ({"event": EventSchema(*FIELDS, Number("tip"))}, True, "event field tip is new"),
        ({"event": EventSchema(Number("tip", optional=True), *FIELDS)}, True, "event field tip is new"),
        (
            {"event": EventSchema(*FIELDS[:2], Money("cents", maximum=20_000), FIELDS[3])},
            True,
            "event field cents: maximum 20000 instead of 10000",
        ),
        ({"event": EventSchema(*reversed(FIELDS))}, True, "event fields are in another order"),
        ({"features": [OnDemand("dear", dear), *VIEWS]}, True, "feature channel_web to channel_other is gone"),
        (
            {"features": [OnDemand("dear", cheap), *VIEWS, one_hot("channel", ["web", "app"])]},
            True,
            "feature dear: its function (source) is another one",
        ),
        (
            {"features": [OnDemand("dear", dear), *reversed(VIEWS), one_hot("channel", ["web", "app"])]},
            True,
            "features are in another order",
        ),
        ({"label": Label(horizon=DAY)}, False, f"label: horizon {DAY} instead of {30 * DAY}"),
        (
            {"model": Model("none", lambda: None, Decision(threshold=0.1))},
            False,
            "model: decision threshold 0.1 instead of 0.5",
        ),
        ({"lateness": 2 * DAY}, False, "lateness is now 2d instead of 1d"),
        ({"lateness": HOUR}, False, "lateness is now 1h instead of 1d"),
        ({"clock": "live"}, False, "clock: live instead of event"),
    ],
)
def test_a_change_is_named_with_what_follows(changes: dict[str, Any], breaking: bool, what: str) -> None:
    found = compare_definitions(describe_pipeline(declare()), declare(**changes))
    assert found[0].breaking == breaking
    assert found[0].what.startswith(what)
    assert found[0].why


def test_an_optional_field_that_no_feature_names_can_be_added_while_traffic_runs() -> None:
    old, new = declare(), declare(event=EventSchema(*FIELDS, Number("tip", optional=True), Text("note", optional=True)))
    assert new.features_fingerprint == old.features_fingerprint
    assert new.schema_fingerprint != old.schema_fingerprint
    # `channel`, optional too, was the last field of a still earlier schema.
    assert list(new.accepted_schema_fingerprints.values()) == [6, 5, 4, 3]
    assert new.accepted_schema_fingerprints[old.schema_fingerprint] == 4
    assert list(old.accepted_schema_fingerprints.values()) == [4, 3]


def test_an_optional_field_that_a_feature_names_changes_the_features() -> None:
    schema = EventSchema(*FIELDS, Number("tip", optional=True))
    used = declare(event=schema, features=[*VIEWS, OnDemand("tipped", tipped)])
    wider = EventSchema(*FIELDS, Number("tip", optional=True, scale=10))
    assert declare(event=wider).features_fingerprint == declare(event=schema).features_fingerprint
    assert declare(event=wider, features=used.features).features_fingerprint != used.features_fingerprint
