"""A small pipeline in which a label that never comes means 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.pipeline import (
    DAY,
    HOUR,
    Entity,
    EventColumns,
    EventSchema,
    Label,
    Model,
    Money,
    OnDemand,
    Pipeline,
    Text,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def amount(events: EventColumns) -> NDArray[np.float64]:
    """The amount in units of the currency."""
    return events.numbers["amount_cents"] / 100


def logistic_regression() -> Any:
    """The simplest recipe."""
    from river import linear_model

    return linear_model.LogisticRegression()


pipeline = Pipeline(
    "joined",
    event=EventSchema(Text("customer_id"), Money("amount_cents")),
    entities=[Entity("customer", "customer_id")],
    key="customer",
    features=[OnDemand("amount", amount)],
    label=Label(horizon=30 * DAY, expired="negative"),
    model=Model("logistic_regression", logistic_regression),
    lateness=HOUR,
)
