"""What the transports ask of the core, without either knowing the other's form. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.gateway.access import ANYONE, Caller
from headrace.pipeline.events import EventColumns
from headrace.platform.event_codec import CheckedEvent
from headrace.v1.prediction_pb2 import Channel


@dataclass(slots=True)  # not frozen: that would take three times as long to make
class CallContext:
    """What a transport knows of a call beside its message.

    Attributes:
        deadline: time of the event loop after which an answer is of no use.
        channel: by which way the call came.
        caller: who calls, and what he may do.
    """

    deadline: float
    channel: Channel.ValueType
    caller: Caller = ANYONE


@dataclass(slots=True)  # not frozen: that would take three times as long to make
class ScoringRequest:
    """Events of one call.

    Attributes:
        events: checked against the schema, n; as columns where they came so.
        channel: by which way they came.
        received_us: when, wall clock, in microseconds.
        deadline: time of the event loop after which an answer is of no use.
        ingest: whether the events are to be appended to `events`.
        overrides: values to use instead of computed features, by name.
        model_version: the version to use; empty for the routed one.
        features_only: whether features are asked for and no score.
    """

    events: Sequence[CheckedEvent] | EventColumns
    channel: Channel.ValueType
    received_us: int
    deadline: float
    ingest: bool = False
    overrides: Mapping[str, float] = field(default_factory=dict)
    model_version: str = ""
    features_only: bool = False

    def part(self, first: int, end: int) -> ScoringRequest:
        """The same for some of the events."""
        events = self.events
        return ScoringRequest(
            events.part(first, end) if isinstance(events, EventColumns) else events[first:end],
            self.channel,
            self.received_us,
            self.deadline,
            self.ingest,
            self.overrides,
            self.model_version,
            self.features_only,
        )


def now_us() -> int:
    """Wall clock in microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


def milliseconds_since(then_us: int, now_us: int) -> int:
    """Milliseconds between two times in microseconds, at least 0; -1 where there is no earlier one."""
    return max(0, (now_us - then_us) // 1000) if then_us else -1
