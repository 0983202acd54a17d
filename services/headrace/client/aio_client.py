"""The client for asyncio. Answers are the messages of `headrace.v1`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from headrace.client.aio_stream import AsyncPredictionStream
from headrace.client.batching import AsyncPredictionBatching
from headrace.client.calls import STREAM_PREDICT, Call, CallBuilder
from headrace.client.connection import Connection, Methods
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
from headrace.client.thread_client import DEFAULT_TIMEOUT_S, FRAME_IN_FLIGHT, STREAM_IN_FLIGHT
from headrace.v1.prediction_service_pb2 import (
    GetFeaturesResponse,
    PredictBatchResponse,
    PredictResponse,
    StreamPredictResponse,
)

if TYPE_CHECKING:
    from typing import Self, Unpack

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


class AsyncPredictionClient:
    """`PredictionClient` for asyncio: make it in the event loop that it is used in.

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
        self._channel = connection.aio_channel()
        self._methods = Methods(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls under way end."""
        await self._channel.close()

    @property
    def schema(self) -> Schema | None:
        """What events are checked and packed by; None where they go by names."""
        return self._calls.schema

    async def fetch_schema(self, **timing: Unpack[Timing]) -> Schema:
        """Ask the gateway for the schema; see `PredictionClient.fetch_schema`."""
        self._calls.schema = Schema.described(await self._answer(self._calls.describe(timing)))
        return self._calls.schema

    async def predict(self, event: AnyEvent, **asked: Unpack[CallOptions]) -> PredictResponse:
        """Score one event; see `PredictionClient.predict`."""
        return await self._answer(self._calls.predict(event, asked))

    async def predict_batch(
        self,
        event_ids: Sequence[str],
        times: Times,
        columns: Mapping[str, ColumnValues],
        **asked: Unpack[CallOptions],
    ) -> PredictBatchResponse:
        """Score many events, given as columns; see `PredictionClient.predict_batch`."""
        return await self._answer(self._calls.predict_batch(event_ids, times, columns, asked))

    async def predict_events(self, events: Sequence[AnyEvent], **asked: Unpack[CallOptions]) -> PredictBatchResponse:
        """Score many events in one call; see `PredictionClient.predict_events`."""
        return await self._answer(self._calls.events_call(events, asked))

    def stream_predict(
        self,
        events: AsyncIterable[AnyEvent] | Iterable[AnyEvent],
        *,
        max_in_flight: int = STREAM_IN_FLIGHT,
        reconnect_for_s: float = RECONNECT_FOR_S,
        **asked: Unpack[CallOptions],
    ) -> AsyncGenerator[StreamPredictResponse, None]:
        """Score a stream of events; see `PredictionClient.stream_predict`.

        Who leaves the loop early closes it at once by `async with contextlib.aclosing(client.stream_predict(…))`.
        """
        stream = AsyncPredictionStream(
            self._calls,
            events,
            asked,
            self._methods.stream(STREAM_PREDICT),
            self._credentials,
            max_in_flight,
            Patience(reconnect_for_s),
        )
        return stream.answers()

    def batching(
        self, *, max_rows: int = 256, max_in_flight: int = 2, max_waiting: int = 10_000
    ) -> AsyncPredictionBatching:
        """Gathers single events of many tasks into few calls; has `predict` as this client has.

        Args:
            max_rows: of a call, at most 4,096.
            max_in_flight: calls under way at once; events that come meanwhile go together.
            max_waiting: events that may wait; more are refused.
        """
        return AsyncPredictionBatching(
            self._calls,
            self._methods,
            self._credentials,
            max_rows=min(max_rows, MAX_BATCH_EVENTS),
            max_in_flight=max_in_flight,
            max_waiting=max_waiting,
        )

    async def predict_frame(
        self, frame: AnyFrame, *, max_in_flight: int = FRAME_IN_FLIGHT, **asked: Unpack[FrameOptions]
    ) -> AnyFrame:
        """Score the rows of a frame; see `PredictionClient.predict_frame`."""
        rows = table(frame)
        events = asked_events(rows, self.schema or await self.fetch_schema(), asked)
        calls = self._calls.batches(events, asked.get("batch_rows", BATCH_ROWS), asked)
        answers: list[PredictBatchResponse] = []
        under_way: deque[asyncio.Task[PredictBatchResponse]] = deque()
        try:
            for call in calls:
                under_way.append(asyncio.create_task(self._answer(call)))
                if len(under_way) >= max_in_flight:
                    answers.append(await under_way[0])
                    under_way.popleft()
            while under_way:
                answers.append(await under_way[0])
                under_way.popleft()
        except CallError as error:
            raise error.of_rows(sum(len(answer.event_ids) for answer in answers)) from error
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        columns = answer_columns(asked.get("id_column", ID_COLUMN), answers, explain=asked.get("explain", False))
        return rows.answer(columns)

    async def features(self, event: AnyEvent, **timing: Unpack[Timing]) -> GetFeaturesResponse:
        """The features of an event, evaluated now; see `PredictionClient.features`."""
        return await self._answer(self._calls.features(event, timing))

    async def _answer(self, call: Call[Q, A]) -> A:
        method = self._methods.unary(call.method)
        again = True
        while True:
            metadata = await self._credentials.metadata_async()
            timeout_s = call.deadline.remaining()
            if timeout_s <= 0:
                raise deadline_passed()
            try:
                answer: A = await method(call.request, timeout=timeout_s, metadata=metadata)
            except grpc.RpcError as error:
                failure = call_error(error)
                unknown = failure.code is grpc.StatusCode.UNAUTHENTICATED
                if not (again and unknown and self._credentials.refused(metadata)):
                    raise failure from error
                again = False
            else:
                return answer
