"""What a user declares, and the only place where a feature is defined. Pure: nothing here talks to anything.

The stream processor, the gateway and the offline recomputation all call this package, so that a feature has one
meaning everywhere.
"""

from headrace.pipeline.definition import Decision, Label, Model, Monitoring, Pipeline
from headrace.pipeline.errors import DefinitionError, EventError
from headrace.pipeline.events import EventColumns
from headrace.pipeline.features import (
    Aggregation,
    Entity,
    FeatureView,
    OnDemand,
    count,
    label_count,
    label_rate,
    mean,
    total,
)
from headrace.pipeline.schema import Boolean, EventSchema, Integer, Money, Number, Text
from headrace.pipeline.time_units import DAY, HOUR, MICROSECOND, MINUTE, SECOND

__all__ = [
    "DAY",
    "HOUR",
    "MICROSECOND",
    "MINUTE",
    "SECOND",
    "Aggregation",
    "Boolean",
    "Decision",
    "DefinitionError",
    "Entity",
    "EventColumns",
    "EventError",
    "EventSchema",
    "FeatureView",
    "Integer",
    "Label",
    "Model",
    "Money",
    "Monitoring",
    "Number",
    "OnDemand",
    "Pipeline",
    "Text",
    "count",
    "label_count",
    "label_rate",
    "mean",
    "total",
]
