"""The pipelines that offline computations are tested with."""

from __future__ import annotations

import numpy as np

from headrace.pipeline import (
    Boolean,
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
    label_count,
    label_rate,
    mean,
    total,
)
from headrace.platform.pipelines import load_pipeline


def amount(events: EventColumns) -> np.ndarray:
    return events.numbers["cents"] / 100


small = Pipeline(
    "small",
    event=EventSchema(
        Text("customer"),
        Text("terminal"),
        Text("note", optional=True),
        Money("cents", maximum=10_000),
        Number("weight", minimum=-500, maximum=500, scale=1000),
        Boolean("online", optional=True),
    ),
    entities=[Entity("customer", "customer"), Entity("terminal", "terminal")],
    key="customer",
    features=[
        FeatureView(
            "customer",
            count(10, hop=1, name="count_10"),
            mean("cents", 10, hop=1, name="mean_10", default=-1.0),
            total("weight", 20, hop=5, name="weight_20"),
            count(20, hop=5, delay=10, name="count_20_10"),
        ),
        OnDemand("amount", amount),
        FeatureView(
            "terminal",
            count(12, delay=6, hop=3, name="count_12"),
            label_rate(12, delay=6, hop=3, name="rate_12"),
            label_rate(12, delay=6, hop=3, name="labelled_rate_12", over="labelled", default=0.5),
            label_count(30, delay=6, hop=1, name="positives_30"),
        ),
    ],
    label=Label(horizon=100),
    model=Model("none", lambda: None),
)
fraud = load_pipeline("pipelines/fraud.py")
EVERY = [small, fraud]
