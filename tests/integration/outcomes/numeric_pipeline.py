"""A small pipeline whose label is a number: the minutes that a ride takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.pipeline import (
    DAY,
    HOUR,
    Decision,
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


def fare(events: EventColumns) -> NDArray[np.float64]:
    """The fare in units of the currency."""
    return events.numbers["fare_cents"] / 100


def linear_regression() -> Any:
    """The simplest recipe."""
    from river import linear_model, optim

    return linear_model.LinearRegression(optim.SGD(0.01))


pipeline = Pipeline(
    "joined",
    event=EventSchema(Text("rider_id"), Money("fare_cents")),
    entities=[Entity("rider", "rider_id")],
    key="rider",
    features=[OnDemand("fare", fare)],
    label=Label(kind="number", horizon=30 * DAY, minimum=0, maximum=600, unit="minutes"),
    model=Model("linear_regression", linear_regression, Decision(threshold=45)),
    lateness=HOUR,
)
