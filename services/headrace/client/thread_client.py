"""The client for threads. Answers are the messages of `headrace.v1`."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf.message import Message

from headrace.client.batching import PredictionBatching
from headrace.client.calls import STREAM_PREDICT, Call, CallBuilder
from headrace.client.connection import Connection, Metadata, Methods
from headrace.client.errors import CallError, call_error, deadline_passed
from headrace.client.frames import (
    BATCH_ROWS,
    ID_COLUMN,
    FrameOptions,
    answer_columns,
    asked_events,
)
from headrace.client.reconnecting import RECONNECT_FOR_S, Patience
from headrace.client.requests import MAX_BATCH_EVENTS, AnyEvent, CallOptions, ColumnValues, Times, Timing
from headrace.client.schema import Schema
from headrace.client.tables import AnyFrame, table
from headrace.client.targets import DEFAULT_TARGET
from headrace.client.thread_stream import PredictionStream
from headrace.v1.prediction_service_pb2 import (
    GetFeaturesResponse,
    PredictBatchResponse,
    PredictResponse,
    StreamPredictResponse,
)

if TYPE_CHECKING:
    from typing import Self, Unpack

DEFAULT_TIMEOUT_S = 5.0
STREAM_IN_FLIGHT = 512
FRAME_IN_FLIGHT = 4

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


class PredictionClient:
    """Calls a gateway; safe to share between threads. Use it as a context manager, or close it.

    Args:
        target: gRPC address, host:port, several of them, or a `Connection` that says more.
        pipeline: deployed pipeline name; empty means the only one that the gateway serves.
        timeout_s: of each call that names none, in seconds; in a stream, of each event.
        schema: checks events before they are sent, and packs them; see `fetch_schema`.

    Raises:
        ValueError: an address, a certificate or a combination that is not allowed.
    """

    def __init__(
        self,
        target: str | Sequence[str] | Connection = DEFAULT_TARGET,
        *,
        pipeline: str = "",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        schema: Schema | None = None,
    ) -> None:
        connection = target if isinstance(target, Connection) else Connection(target)
        self._calls = CallBuilder(pipeline, timeout_s, schema)
        self._credentials = connection.credentials()
        self._channel = connection.channel()
        self._methods = Methods(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls under way end."""
        self._channel.close()

    @property
    def schema(self) -> Schema | None:
        """What events are checked and packed by; None where they go by names."""
        return self._calls.schema

    def fetch_schema(self, **timing: Unpack[Timing]) -> Schema:
        """Ask the gateway for the schema of its pipeline, and check and pack events by it from now on.

        Raises:
            CallError: there is no answer.
        """
        self._calls.schema = Schema.described(self._answer(self._calls.describe(timing)))
        return self._calls.schema

    def predict(self, event: AnyEvent, **asked: Unpack[CallOptions]) -> PredictResponse:
        """Score one event.

        Args:
            event: the event.
            asked: see `CallOptions`.

        Raises:
            CallError: there is no answer.
            InvalidInputError: the event breaks the schema; nothing was sent.
        """
        return self._answer(self._calls.predict(event, asked))

    def predict_batch(
        self,
        event_ids: Sequence[str],
        times: Times,
        columns: Mapping[str, ColumnValues],
        **asked: Unpack[CallOptions],
    ) -> PredictBatchResponse:
        """Score many events, given as columns.

        Args:
            event_ids: ids of at most 4,096 events.
            times: when they happened.
            columns: one value per event for each field.
            asked: as in `predict`, for all events.

        Raises:
            CallError: there is no answer.
            InvalidInputError: a column mixes text and numbers or has a wrong length, or a time has no zone.
        """
        return self._answer(self._calls.predict_batch(event_ids, times, columns, asked))

    def predict_events(self, events: Sequence[AnyEvent], **asked: Unpack[CallOptions]) -> PredictBatchResponse:
        """Score many events in one call; the answers are in their order.

        Args:
            events: 1 to 4,096 events, all with the same fields.
            asked: as in `predict`, for all events.

        Raises:
            CallError: there is no answer.
            InvalidInputError: an event breaks the schema, or has other fields than the first; nothing was sent.
        """
        return self._answer(self._calls.events_call(events, asked))

    def stream_predict(
        self,
        events: Iterable[AnyEvent],
        *,
        max_in_flight: int = STREAM_IN_FLIGHT,
        reconnect_for_s: float = RECONNECT_FOR_S,
        **asked: Unpack[CallOptions],
    ) -> Generator[StreamPredictResponse, None, None]:
        """Score a stream of events, over as many connections as it takes.

        Answers come in any order and are matched by event id. An event that is wrong, is refused until its deadline or
        finds no gateway has its error as an answer, and the stream goes on. Where the connection breaks, what is
        unanswered is sent again. The events are read in a thread of the stream's own, no further than `max_in_flight`
        ahead of the answers that were taken.

        Args:
            events: read as they are needed.
            max_in_flight: events that may be unanswered, or answered and not taken.
            reconnect_for_s: how long to look for a gateway while none answers, in seconds.
            asked: as in `predict`, for all events; `timeout_s` is each event's own, `deadline` that of all.

        Raises:
            CallError: there was no gateway for so long, or it refuses the caller.
        """
        stream = PredictionStream(
            self._calls,
            events,
            asked,
            self._methods.stream(STREAM_PREDICT),
            self._credentials,
            max_in_flight,
            Patience(reconnect_for_s),
        )
        return stream.answers()

    def batching(self, *, max_rows: int = 256, max_in_flight: int = 2, max_waiting: int = 10_000) -> PredictionBatching:
        """Gathers single events of many threads into few calls; has `predict` as this client has.

        Args:
            max_rows: of a call, at most 4,096.
            max_in_flight: calls under way at once; events that come meanwhile go together.
            max_waiting: events that may wait; more are refused.
        """
        return PredictionBatching(
            self._calls,
            self._methods,
            self._credentials,
            max_rows=min(max_rows, MAX_BATCH_EVENTS),
            max_in_flight=max_in_flight,
            max_waiting=max_waiting,
        )

    def predict_frame(
        self, frame: AnyFrame, *, max_in_flight: int = FRAME_IN_FLIGHT, **asked: Unpack[FrameOptions]
    ) -> AnyFrame:
        """Score the rows of a pandas or polars frame, or of a mapping of arrays.

        Args:
            frame: has a column for the ids, one for the times, and one for each field; others are left out.
            max_in_flight: calls under way at once.
            asked: see `FrameOptions`; `timeout_s` is each call's own, `deadline` that of all.

        Returns:
            A frame of the same kind with a row for each row: the event id, `score`, `decision`, `model_version`,
            `route`, `role`, `prediction_id`, `untrained`, `degradations`, `features_age_ms`, `model_time_us`, and with
            `explain` the features as `feature_<name>`.

        Raises:
            CallError: a call has no answer; the rows of calls before it may have been scored.
            InvalidInputError: names the column and the row that break the schema; nothing was sent.
        """
        rows = table(frame)
        events = asked_events(rows, self.schema or self.fetch_schema(), asked)
        calls = self._calls.batches(events, asked.get("batch_rows", BATCH_ROWS), asked)
        answers = []
        with ThreadPoolExecutor(max_in_flight, "headrace-frame") as threads:
            under_way: deque[Future[PredictBatchResponse]] = deque()
            try:
                for call in calls:
                    under_way.append(threads.submit(self._answer, call))
                    if len(under_way) >= max_in_flight:
                        answers.append(under_way.popleft().result())
                while under_way:
                    answers.append(under_way.popleft().result())
            except CallError as error:
                for one in under_way:
                    one.cancel()
                first = sum(len(answer.event_ids) for answer in answers)
                raise error.of_rows(first) from error
        columns = answer_columns(asked.get("id_column", ID_COLUMN), answers, explain=asked.get("explain", False))
        return rows.answer(columns)

    def features(self, event: AnyEvent, **timing: Unpack[Timing]) -> GetFeaturesResponse:
        """The features of an event, evaluated now.

        Raises:
            CallError: there is no answer.
            InvalidInputError: the event breaks the schema; nothing was sent.
        """
        return self._answer(self._calls.features(event, timing))

    def _answer(self, call: Call[Q, A]) -> A:
        method = self._methods.unary(call.method)
        again = True
        while True:
            metadata = self._credentials.metadata()
            timeout_s = call.deadline.remaining()
            if timeout_s <= 0:
                raise deadline_passed()
            try:
                answer: A = method(call.request, timeout=timeout_s, metadata=metadata)
            except grpc.RpcError as error:
                failure = call_error(error)
                if not (again and self._other_credentials(failure, metadata)):
                    raise failure from error
                again = False
            else:
                return answer

    def _other_credentials(self, failure: CallError, metadata: Metadata) -> bool:
        return failure.code is grpc.StatusCode.UNAUTHENTICATED and self._credentials.refused(metadata)
