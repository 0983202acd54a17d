"""A small pipeline with short seasons of reference, for the monitor to watch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.pipeline import (
    DAY,
    HOUR,
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
    "watched",
    event=EventSchema(Text("customer_id"), Money("amount_cents")),
    entities=[Entity("customer", "customer_id")],
    key="customer",
    features=[OnDemand("amount", amount), FeatureView("customer", count(2 * DAY))],
    label=Label(horizon=30 * DAY),
    model=Model("logistic_regression", logistic_regression),
    monitoring=Monitoring(reference_seasons=3, min_season_rows=1, min_auc=0.6),
    lateness=HOUR,
)
