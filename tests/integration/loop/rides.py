"""A pipeline whose label is a number: the minutes that a ride takes, from what it costs and where it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    OnDemand,
    Pipeline,
    Text,
    count,
    mean,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def fare(events: EventColumns) -> NDArray[np.float64]:
    """The fare in units of the currency."""
    return events.numbers["fare_cents"] / 100


def scaled_linear_regression() -> Any:
    """Standard scaling and linear regression by stochastic gradient descent."""
    from river import linear_model, optim, preprocessing

    return preprocessing.StandardScaler() | linear_model.LinearRegression(optim.SGD(0.05))


pipeline = Pipeline(
    "rides",
    event=EventSchema(Text("rider_id"), Text("zone_id"), Money("fare_cents")),
    entities=[Entity("rider", "rider_id"), Entity("zone", "zone_id")],
    key="rider",
    features=[
        OnDemand("fare", fare),
        FeatureView("rider", count(1 * HOUR), mean("fare_cents", 1 * DAY)),
        FeatureView("zone", count(1 * HOUR)),
    ],
    label=Label(kind="number", horizon=30 * DAY, minimum=0, maximum=600, unit="minutes"),
    model=Model("linear_regression", scaled_linear_regression, Decision(threshold=20)),
    lateness=1 * HOUR,
)
