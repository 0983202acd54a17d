"""Card fraud: score every payment, learn from charge-backs a week later. The default pipeline, and the one to copy.

Features follow the published baseline of the Fraud Detection Handbook (Le Borgne, Siblini, Lebichot, Bontempi, 2022,
"Fraud detection for credit card transactions", chapter 3.4): how often and how much a customer spends, and how often a
terminal was seen in frauds that were known by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.pipeline import (
    DAY,
    HOUR,
    Decision,
    Entity,
    EventColumns,
    EventSchema,
    FeatureView,
    Label,
    Model,
    Money,
    Monitoring,
    OnDemand,
    Pipeline,
    Text,
    count,
    label_rate,
    mean,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEEK = 7 * DAY
WINDOWS = (1 * DAY, 7 * DAY, 30 * DAY)


def amount(events: EventColumns) -> NDArray[np.float64]:
    """The amount in units of the currency."""
    return events.numbers["amount_cents"] / 100


def weekend(events: EventColumns) -> NDArray[np.float64]:
    """1 on Saturday and Sunday (UTC), else 0. Day 0 of the epoch was a Thursday."""
    return ((events.times // DAY + 3) % 7 >= 5).astype(np.float64)


def night(events: EventColumns) -> NDArray[np.float64]:
    """1 from midnight until before seven (UTC), else 0."""
    return (events.times % DAY // HOUR <= 6).astype(np.float64)


def scaled_logistic_regression() -> Any:
    """Standard scaling and logistic regression by stochastic gradient descent."""
    from river import linear_model, optim, preprocessing

    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.005))


pipeline = Pipeline(
    "fraud",
    event=EventSchema(Text("customer_id"), Text("terminal_id"), Money("amount_cents", maximum=1_000_000_00)),
    entities=[Entity("customer", "customer_id"), Entity("terminal", "terminal_id")],
    key="customer",
    features=[
        OnDemand("amount", amount),
        OnDemand("weekend", weekend),
        OnDemand("night", night),
        FeatureView("customer", *(make for w in WINDOWS for make in (count(w), mean("amount_cents", w)))),
        FeatureView("terminal", *(make for w in WINDOWS for make in (count(w, delay=WEEK), label_rate(w, delay=WEEK)))),
    ],
    label=Label(horizon=30 * DAY),
    model=Model("scaled_logistic_regression", scaled_logistic_regression, Decision(threshold=0.5)),
    monitoring=Monitoring(),
)
