"""Advertisement clicks: score every impression of a page, learn from clicks as they come.

Unlike `fraud.py` in most things: three entities whose events mix, windows of minutes and hours that move by a hop, a
label that comes within the hour or not at all, and events that are at most some minutes out of order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.pipeline import (
    HOUR,
    MINUTE,
    Decision,
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
    label_rate,
    mean,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

HORIZON = 1 * HOUR


def position(events: EventColumns) -> NDArray[np.float64]:
    """Where on the page the advertisement is, from 1."""
    return events.numbers["position"]


def price(events: EventColumns) -> NDArray[np.float64]:
    """The price of the impression in units of the currency."""
    return events.numbers["price_cents"] / 100


def scaled_logistic_regression() -> Any:
    """Standard scaling and logistic regression by stochastic gradient descent."""
    from river import linear_model, optim, preprocessing

    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.01))


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
        FeatureView(
            "user",
            count(10 * MINUTE),
            count(6 * HOUR, hop=5 * MINUTE),
            mean("dwell_s", 1 * HOUR, hop=1 * MINUTE),
            label_rate(12 * HOUR, delay=HORIZON, hop=5 * MINUTE),
        ),
        FeatureView(
            "ad",
            count(1 * HOUR, hop=1 * MINUTE),
            label_rate(6 * HOUR, delay=HORIZON, hop=5 * MINUTE),
        ),
        FeatureView(
            "page",
            mean("price_cents", 6 * HOUR, hop=5 * MINUTE),
            label_rate(12 * HOUR, delay=HORIZON, hop=5 * MINUTE),
        ),
    ],
    label=Label(horizon=HORIZON, expired="negative"),
    model=Model("scaled_logistic_regression", scaled_logistic_regression, Decision(0.1, "promote", "keep", "keep")),
    monitoring=Monitoring(season=3 * HOUR, reference_seasons=4),
    lateness=10 * MINUTE,
    max_jump=12 * HOUR,
)
