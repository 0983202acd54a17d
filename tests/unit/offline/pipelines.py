"""The pipelines that offline computations are tested with."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np

from headrace.pipeline import (
    Boolean,
    Derived,
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
    one_hot,
    total,
)
from headrace.pipeline.aggregations.operations import OPERATIONS
from headrace.pipeline.events import FloatArray
from headrace.platform.pipelines import load_pipeline
from tests.unit.pipeline.every_aggregation import pipeline_of


def amount(events: EventColumns) -> np.ndarray:
    return events.numbers["cents"] / 100


def relative(features: Mapping[str, FloatArray]) -> FloatArray:
    return features["amount"] - features["customer_mean_10"]


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
        Derived("relative", relative),
        one_hot("note", ["n0", "n1"]),
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
fraud, clicks = load_pipeline("pipelines/fraud.py"), load_pipeline("pipelines/clicks.py")
WHOLE = [small, fraud, clicks]
OF_EACH_OPERATION = [pipeline_of(operation, hop=hop) for operation, hop in zip(OPERATIONS, cycle((1, 5)))]
