"""What a user declares, and the only place where a feature is defined. Pure: nothing here talks to anything.

The stream processor, the gateway and the offline recomputation all call this package, so that a feature has one
meaning everywhere.
"""

from headrace.pipeline.definition import Decision, Model, Monitoring, Pipeline
from headrace.pipeline.encodings import Encoding, hashed, one_hot, ordinal
from headrace.pipeline.errors import DefinitionError, EventError
from headrace.pipeline.events import EventColumns
from headrace.pipeline.features import (
    Aggregation,
    Derived,
    Entity,
    FeatureView,
    OnDemand,
    count,
    decayed_count,
    decayed_mean,
    distinct,
    label_count,
    label_mean,
    label_rate,
    last,
    maximum,
    mean,
    minimum,
    quantile,
    std,
    time_since_last,
    total,
)
from headrace.pipeline.label import Label
from headrace.pipeline.releasing import Releasing
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
    "Derived",
    "Encoding",
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
    "Releasing",
    "Text",
    "count",
    "decayed_count",
    "decayed_mean",
    "distinct",
    "hashed",
    "label_count",
    "label_mean",
    "label_rate",
    "last",
    "maximum",
    "mean",
    "minimum",
    "one_hot",
    "ordinal",
    "quantile",
    "std",
    "time_since_last",
    "total",
]
