"""Advertisement clicks: score every impression of a page, learn from clicks as they come.

Unlike `fraud.py` in most things: three entities whose events mix, windows of minutes and hours that move by a hop, a
label that comes within the hour or not at all, and events that are at most half an hour out of order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.pipeline import (
    HOUR,
    MINUTE,
    Decision,
    Derived,
    Entity,
    EventColumns,
    EventSchema,
    FeatureView,
    Integer,
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
    hashed,
    label_count,
    label_rate,
    last,
    maximum,
    mean,
    minimum,
    one_hot,
    quantile,
    std,
    time_since_last,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

HORIZON = 1 * HOUR
HOP = 5 * MINUTE
"""Records that are old enough are kept as one for each hop, so that a busy page takes no more room than a quiet one."""


def position(events: EventColumns) -> NDArray[np.float64]:
    """Where on the page the advertisement is, from 1."""
    return events.numbers["position"]


def price(events: EventColumns) -> NDArray[np.float64]:
    """The price of the impression in units of the currency."""
    return events.numbers["price_cents"] / 100


def long_look(events: EventColumns) -> NDArray[np.bool_]:
    """Events of users who had stayed on the page for half a minute or longer."""
    return events.numbers["dwell_s"] >= 30


def price_over_page(features: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The price of the impression over what the page has had lately."""
    return features["price"] / np.maximum(features["page_decayed_mean_price_cents_1h"], 0.01)


def scaled_logistic_regression() -> Any:
    """Standard scaling and logistic regression by stochastic gradient descent."""
    from river import linear_model, optim, preprocessing

    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.001))


pipeline = Pipeline(
    "clicks",
    event=EventSchema(
        Text("user_id"),
        Text("ad_id"),
        Text("page_id"),
        Text("device", max_bytes=16),
        Text("country", max_bytes=2),
        Integer("position", minimum=1, maximum=20),
        Number("dwell_s", minimum=0, maximum=3600, scale=10),
        Money("price_cents", maximum=100_000),
    ),
    entities=[Entity("user", "user_id"), Entity("ad", "ad_id"), Entity("page", "page_id")],
    key="user",
    features=[
        OnDemand("position", position),
        OnDemand("price", price),
        one_hot("device", ["phone", "desktop", "tablet"]),
        hashed("country", 8),
        FeatureView(
            "user",
            count(10 * MINUTE, hop=1 * MINUTE),
            count(6 * HOUR, hop=HOP, where=long_look),
            decayed_count(15 * MINUTE, hop=1 * MINUTE),
            time_since_last(6 * HOUR, hop=HOP),
            distinct("ad_id", 6 * HOUR, hop=HOP),
            distinct("page_id", 6 * HOUR, hop=HOP),
            mean("dwell_s", 1 * HOUR, hop=HOP),
            std("dwell_s", 6 * HOUR, hop=HOP),
            last("position", 6 * HOUR, hop=HOP, default=0),
            label_count(12 * HOUR, delay=HORIZON, hop=HOP),
            label_rate(12 * HOUR, delay=HORIZON, hop=HOP),
        ),
        FeatureView(
            "ad",
            count(1 * HOUR, hop=HOP),
            distinct("user_id", 6 * HOUR, hop=HOP),
            quantile("dwell_s", 0.5, 6 * HOUR, hop=HOP),
            minimum("price_cents", 6 * HOUR, hop=HOP),
            maximum("price_cents", 6 * HOUR, hop=HOP),
            label_rate(6 * HOUR, delay=HORIZON, hop=HOP),
        ),
        FeatureView(
            "page",
            decayed_count(1 * HOUR, hop=HOP),
            decayed_mean("price_cents", 1 * HOUR, hop=HOP),
            label_rate(12 * HOUR, delay=HORIZON, hop=HOP),
        ),
        Derived("price_over_page", price_over_page),
    ],
    label=Label(horizon=HORIZON, expired="negative"),
    model=Model("scaled_logistic_regression", scaled_logistic_regression, Decision(0.1, "promote", "keep", "keep")),
    # Few advertisements make many impressions, so that their features differ from season to season without a cause.
    monitoring=Monitoring(season=3 * HOUR, reference_seasons=4, psi_threshold=0.25),
    lateness=30 * MINUTE,
    max_jump=12 * HOUR,
)
