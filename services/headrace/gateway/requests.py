"""What the transports ask of the core and what they get, without either knowing the other's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.pipeline.events import FloatArray
from headrace.platform.event_codec import CheckedEvent
from headrace.v1.prediction_pb2 import Channel, Degradation, Prediction


@dataclass(frozen=True)
class ScoringRequest:
    """Events of one call.

    Attributes:
        events: checked against the schema.
        channel: by which way they came.
        received_us: when, wall clock, in microseconds.
        deadline: time of the event loop after which an answer is of no use.
        ingest: whether the events are to be appended to `events`.
        overrides: values to use instead of computed features, by name.
        model_version: the version to use; empty for the routed one.
    """

    events: Sequence[CheckedEvent]
    channel: Channel.ValueType
    received_us: int
    deadline: float
    ingest: bool = False
    overrides: Mapping[str, float] = field(default_factory=dict)
    model_version: str = ""


@dataclass(frozen=True)
class EvaluatedFeatures:
    """Features of one event.

    Attributes:
        values: shape (width,), float64.
        event_positions: state positions that they hold at, by partition of `events`.
        outcome_positions: the same for `outcomes`.
        newest_us: production time of the newest record in the state, in microseconds; 0 when it is empty or unread.
        degradations: what was missing.
    """

    values: FloatArray
    event_positions: Sequence[int]
    outcome_positions: Sequence[int]
    newest_us: int
    degradations: Sequence[Degradation.ValueType]


def age_ms(prediction: Prediction) -> int:
    """How old the features of an answer were, in milliseconds; -1 when the state is empty or was not read."""
    return milliseconds_since(prediction.features_time_us, prediction.answered_time_us)


def milliseconds_since(then_us: int, now_us: int) -> int:
    """Milliseconds between two times in microseconds, at least 0; -1 where there is no earlier one."""
    return max(0, (now_us - then_us) // 1000) if then_us else -1
