from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from headrace.pipeline import (
    DefinitionError,
    Derived,
    Entity,
    EventColumns,
    EventSchema,
    FeatureView,
    Integer,
    Label,
    Model,
    Money,
    OnDemand,
    Pipeline,
    Text,
    hashed,
    mean,
    one_hot,
    ordinal,
)
from headrace.pipeline.state import compile_plan
from headrace.pipeline.windows import EntityState, SortedLog, feature_vectors

SCHEMA = EventSchema(
    Text("user"), Text("channel", optional=True), Integer("zone", minimum=-5, maximum=99, optional=True), Money("cents")
)
EVENTS = EventColumns.from_rows(
    SCHEMA,
    ["a", "b", "c", "d"],
    [1, 2, 3, 4],
    [["u", "web"], ["u", "app"], ["u", ""], ["u", "fax"]],
    [[7, 100], [-5, 200], [math.nan, 300], [8, 400]],
)


def test_one_hot_has_a_column_for_each_category_and_one_for_others() -> None:
    encoding = one_hot("channel", ["web", "app"])
    assert encoding.names == ("channel_web", "channel_app", "channel_other")
    assert encoding.values(EVENTS).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert one_hot("zone", [7, -5]).values(EVENTS).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]


def test_an_ordinal_is_the_place_among_the_categories() -> None:
    assert ordinal("channel", ["app", "web"]).values(EVENTS)[:, 0].tolist() == [1, 0, -1, -1]
    assert ordinal("zone", [7], other=9.5, name="zoned").values(EVENTS)[:, 0].tolist() == [0, 9.5, 9.5, 9.5]


def test_a_hashed_value_is_in_the_same_bucket_on_every_machine() -> None:
    values = hashed("channel", 8).values(EVENTS)
    assert values.shape == (4, 8)
    assert values.sum(axis=1).tolist() == [1, 1, 1, 1]
    digests = [hashlib.blake2b(text, digest_size=8).digest() for text in (b"web", b"app", b"", b"fax")]
    assert values.argmax(axis=1).tolist() == [int.from_bytes(one, "little") % 8 for one in digests] == [0, 7, 4, 5]
    assert hashed("zone", 4).values(EVENTS).sum() == 4


def test_the_number_of_buckets_is_bounded() -> None:
    with pytest.raises(DefinitionError, match="encoding of 'channel': 2000 buckets; allowed are 1 to 1024"):
        hashed("channel", 2000)


def dear(events: EventColumns) -> np.ndarray:
    return events.numbers["cents"] / 100


def test_a_derived_feature_is_made_of_others_wherever_they_stand() -> None:
    pipeline = Pipeline(
        "derived",
        event=SCHEMA,
        entities=[Entity("user", "user")],
        key="user",
        features=[
            Derived("over_mean", lambda features: features["amount"] / features["user_mean_cents_10us"]),
            Derived("over_mean_twice", lambda features: 2 * features["over_mean"]),
            FeatureView("user", mean("cents", 10, hop=1)),
            OnDemand("amount", dear),
            one_hot("channel", ["web"]),
        ],
        label=Label(),
        model=Model("none", lambda: None),
    )
    plan = compile_plan(pipeline)
    record = plan.entities[0].event_record
    log = SortedLog.from_values([b""], record, np.zeros(0, record), np.zeros(0, np.int64))
    found = feature_vectors(plan, EVENTS, [EntityState(np.zeros(4, np.int64), log, None)])
    assert found.tolist() == [[1, 2, 1, 1, 1, 0], [1, 2, 2, 2, 0, 1], [1, 2, 3, 3, 0, 1], [1, 2, 4, 4, 0, 1]]
