"""The gateway's methods, described once for every transport: which method, which request, until when. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from google.protobuf.message import Message

from headrace.client.deadlines import Deadline
from headrace.client.requests import (
    MAX_BATCH_EVENTS,
    AnyEvent,
    CallOptions,
    ColumnValues,
    FieldValue,
    Times,
    Timing,
    batch_request,
    predict_options,
)
from headrace.client.schema import Schema
from headrace.client.violations import InvalidInputError, Violation
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import (
    DescribePipelineRequest,
    DescribePipelineResponse,
    GetFeaturesRequest,
    GetFeaturesResponse,
    PredictBatchRequest,
    PredictBatchResponse,
    PredictOptions,
    PredictRequest,
    PredictResponse,
    StreamPredictResponse,
)

if TYPE_CHECKING:
    from headrace.client.frames import FrameEvents

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True)
class Method(Generic[Q, A]):
    """A method of the contract.

    Attributes:
        service: full name of its service.
        name: of the method.
        request: its request.
        answer: its answer, or one of them.
    """

    service: str
    name: str
    request: type[Q]
    answer: type[A]

    @property
    def path(self) -> str:
        """As gRPC names it."""
        return f"/{self.service}/{self.name}"


PREDICTIONS = "headrace.v1.PredictionService"
FEATURES = "headrace.v1.FeatureService"

PREDICT = Method(PREDICTIONS, "Predict", PredictRequest, PredictResponse)
PREDICT_BATCH = Method(PREDICTIONS, "PredictBatch", PredictBatchRequest, PredictBatchResponse)
STREAM_PREDICT = Method(PREDICTIONS, "StreamPredict", PredictRequest, StreamPredictResponse)
GET_FEATURES = Method(FEATURES, "GetFeatures", GetFeaturesRequest, GetFeaturesResponse)
DESCRIBE_PIPELINE = Method(FEATURES, "DescribePipeline", DescribePipelineRequest, DescribePipelineResponse)

UNARY: tuple[Method[Message, Message], ...] = (PREDICT, PREDICT_BATCH, GET_FEATURES, DESCRIBE_PIPELINE)  # type: ignore[assignment]
"""What may be retried by gRPC itself."""


Shape = tuple[int, tuple[tuple[str, bool], ...]]


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, A]):
    """One call that is about to be made.

    Attributes:
        method: which.
        request: of the caller.
        deadline: until when.
    """

    method: Method[Q, A]
    request: Q
    deadline: Deadline


BatchCall = Call[PredictBatchRequest, PredictBatchResponse]


class CallBuilder:
    """Calls from plain Python values.

    Args:
        pipeline: deployed pipeline name; empty means the only one that the gateway serves.
        timeout_s: of a call that names none, in seconds.
        schema: checks and packs events; None sends them by names, for the gateway to check.
    """

    def __init__(self, pipeline: str, timeout_s: float, schema: Schema | None) -> None:
        self.pipeline = pipeline
        self.timeout_s = timeout_s
        self.schema = schema

    def deadline(self, timing: Timing | CallOptions) -> Deadline:
        """When a call must have ended."""
        given = timing.get("deadline")
        timeout_s = timing.get("timeout_s")
        if timeout_s is None and given is not None:
            return given
        return Deadline.after(self.timeout_s if timeout_s is None else timeout_s).earlier(given)

    def event(self, event: AnyEvent) -> Event:
        """An event as it travels."""
        if isinstance(event, Event):
            return event
        return self.schema.pack(event) if self.schema is not None else event.message()

    def predict_request(self, event: AnyEvent, options: PredictOptions) -> PredictRequest:
        """For `Predict` and `StreamPredict`."""
        return PredictRequest(pipeline=self.pipeline, event=self.event(event), options=options)

    def predict(self, event: AnyEvent, asked: CallOptions) -> Call[PredictRequest, PredictResponse]:
        """Score one event."""
        return Call(PREDICT, self.predict_request(event, predict_options(asked)), self.deadline(asked))

    def predict_batch(
        self,
        event_ids: Sequence[str],
        times: Times,
        columns: Mapping[str, ColumnValues],
        asked: CallOptions,
    ) -> BatchCall:
        """Score many events, given as columns."""
        request = batch_request(self.pipeline, event_ids, times, columns, predict_options(asked))
        return Call(PREDICT_BATCH, request, self.deadline(asked))

    def events_call(self, events: Sequence[AnyEvent], asked: CallOptions) -> BatchCall:
        """Score many events in one call.

        Raises:
            InvalidInputError: an event breaks the schema, or has other fields than the first; says which.
        """
        packed = []
        for i, event in enumerate(events):
            try:
                packed.append(self.event(event))
            except InvalidInputError as error:
                raise error.of_event(i) from None
        if not 1 <= len(packed) <= MAX_BATCH_EVENTS:
            raise InvalidInputError([Violation("events", f"{len(packed)} events; allowed are 1 to {MAX_BATCH_EVENTS}")])
        shapes = [shape_of(event) for event in packed]
        for i, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise InvalidInputError([Violation(f"events[{i}]", "has other fields than events[0], or other types")])
        return self.predict_events(packed, predict_options(asked), self.deadline(asked))

    def predict_events(self, events: Sequence[Event], options: PredictOptions, deadline: Deadline) -> BatchCall:
        """Score many events that have the same shape: see `shape_of`."""
        columns: Mapping[str, ColumnValues]
        if events[0].schema_fingerprint:
            assert self.schema is not None
            columns = self.schema.columns(events)
        else:
            columns = {name: [_plain(event, name) for event in events] for name in events[0].fields.fields}
        event_ids = [event.event_id for event in events]
        times = [event.event_time_us for event in events]
        return Call(PREDICT_BATCH, batch_request(self.pipeline, event_ids, times, columns, options), deadline)

    def batches(self, events: FrameEvents, rows: int, asked: CallOptions) -> Iterator[BatchCall]:
        """Score the events of a table, so many in a call; a call's time begins when it is taken from here."""
        for request in events.requests(self.pipeline, predict_options(asked), rows):
            yield Call(PREDICT_BATCH, request, self.deadline(asked))

    def features(self, event: AnyEvent, timing: Timing) -> Call[GetFeaturesRequest, GetFeaturesResponse]:
        """The features of one event."""
        request = GetFeaturesRequest(pipeline=self.pipeline, event=self.event(event))
        return Call(GET_FEATURES, request, self.deadline(timing))

    def describe(self, timing: Timing) -> Call[DescribePipelineRequest, DescribePipelineResponse]:
        """What the gateway serves."""
        return Call(DESCRIBE_PIPELINE, DescribePipelineRequest(pipeline=self.pipeline), self.deadline(timing))


def shape_of(event: Event) -> Shape:
    """What events must have in common to be columns of one call: the schema that they are packed by, or their fields.

    An event with a field too many or of another type is then refused alone.
    """
    if event.schema_fingerprint:
        return event.schema_fingerprint, ()
    fields = sorted((name, value.HasField("string_value")) for name, value in event.fields.fields.items())
    return 0, tuple(fields)


def _plain(event: Event, name: str) -> FieldValue:
    value = event.fields.fields[name]
    kind = value.WhichOneof("kind")
    plain: FieldValue = getattr(value, kind) if kind in {"string_value", "number_value", "bool_value"} else None
    return plain
