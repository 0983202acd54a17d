"""The gRPC methods: a thin shell around the calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

import grpc
import grpc.aio

from headrace.gateway.calls import Calls
from headrace.gateway.errors import GatewayError
from headrace.gateway.grpc_errors import CallStatus, status_of
from headrace.gateway.grpc_streams import AnswerStream
from headrace.gateway.metrics import REQUEST_TIME, REQUESTS
from headrace.gateway.requests import CallContext
from headrace.platform.logging import get_logger
from headrace.v1.prediction_pb2 import CHANNEL_BATCH, CHANNEL_STREAM, CHANNEL_UNARY, Channel
from headrace.v1.prediction_service_pb2 import (
    DescribePipelineRequest,
    DescribePipelineResponse,
    GetFeaturesRequest,
    GetFeaturesResponse,
    PredictBatchRequest,
    PredictBatchResponse,
    PredictRequest,
    PredictResponse,
    StreamPredictResponse,
)
from headrace.v1.prediction_service_pb2_grpc import FeatureServiceServicer, PredictionServiceServicer

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

STOPPING = "the gateway is stopping; call again"
FAILED = CallStatus(grpc.StatusCode.INTERNAL, "the gateway failed; its log says more")


class GrpcCalls:
    """What all methods share: deadlines, errors, metrics.

    Args:
        calls: of the gateway.
        timeout_s: deadline of a call that brings none, in seconds.
    """

    def __init__(self, calls: Calls, timeout_s: float) -> None:
        self.calls = calls
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()

    def context(self, context: Context, channel: Channel.ValueType) -> CallContext:
        """What the calls need to know of a call."""
        # None where the caller set none, whatever the type stubs say.
        remaining: float | None = context.time_remaining()
        allowed = self._timeout_s if remaining is None else remaining
        return CallContext(self._loop.time() + allowed, channel)

    async def answered(self, method: str, context: Context, answer: Awaitable[T]) -> T:
        """Wait for an answer; an error ends the call with its status."""
        began = time.perf_counter()
        status = CallStatus(grpc.StatusCode.OK, "")
        try:
            return await answer
        except GatewayError as error:
            status = status_of(error)
        except asyncio.CancelledError:
            status = CallStatus(grpc.StatusCode.CANCELLED, "")
            raise
        except Exception as error:  # noqa: BLE001 (logged; the caller gets no more than that it happened)
            get_logger().error("call failed", method=method, exc_info=error)
            status = FAILED
        finally:
            REQUEST_TIME.labels(method).observe(time.perf_counter() - began)
            REQUESTS.labels(method, status.code.name).inc()
        await context.abort(status.code, status.message, status.trailing_metadata())
        raise AssertionError("abort() returned")


class PredictionService(PredictionServiceServicer):
    """Scores events.

    Args:
        shared: what all methods share.
        stream_in_flight: events of one stream that may be under way at once.
    """

    def __init__(self, shared: GrpcCalls, stream_in_flight: int) -> None:
        self._shared = shared
        self._calls = shared.calls
        self._stream_in_flight = stream_in_flight
        self._streams: set[asyncio.Task[None]] = set()

    def end_streams(self) -> None:
        """Take in nothing more from the streams; each ends when it has its answers, with UNAVAILABLE."""
        for reading in self._streams:
            reading.cancel()

    async def Predict(self, request: PredictRequest, context: Context) -> PredictResponse:  # noqa: N802 (the contract)
        """Score one event."""
        answer = self._calls.predict(request, self._shared.context(context, CHANNEL_UNARY))
        return await self._shared.answered("Predict", context, answer)

    async def PredictBatch(self, request: PredictBatchRequest, context: Context) -> PredictBatchResponse:  # noqa: N802
        """Score many events, given as columns."""
        answer = self._calls.predict_batch(request, self._shared.context(context, CHANNEL_BATCH))
        return await self._shared.answered("PredictBatch", context, answer)

    async def StreamPredict(  # noqa: N802
        self, request_iterator: AsyncIterator[PredictRequest], context: Context
    ) -> AsyncIterator[StreamPredictResponse]:
        """Score a stream of events; each gets its answer or its error."""
        # A stream may be open for days: the deadline of an event begins when it comes.
        stream = AnswerStream(
            self._calls, lambda: self._shared.context(context, CHANNEL_STREAM), self._stream_in_flight
        )
        reading = asyncio.create_task(stream.read(request_iterator), name="stream-predict")
        self._streams.add(reading)
        try:
            async for answer in stream.answers():
                yield answer
            if reading.cancelled():
                await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)
            if reading.done() and not reading.cancelled() and reading.exception() is not None:
                await context.abort(FAILED.code, FAILED.message)
        finally:
            self._streams.discard(reading)
            reading.cancel()
            stream.close()
            await asyncio.wait({reading})


class FeatureService(FeatureServiceServicer):
    """Reads features without scoring.

    Args:
        shared: what all methods share.
    """

    def __init__(self, shared: GrpcCalls) -> None:
        self._shared = shared
        self._calls = shared.calls

    async def GetFeatures(self, request: GetFeaturesRequest, context: Context) -> GetFeaturesResponse:  # noqa: N802
        """The vector of one event, evaluated now."""
        answer = self._calls.features(request, self._shared.context(context, CHANNEL_UNARY))
        return await self._shared.answered("GetFeatures", context, answer)

    async def DescribePipeline(  # noqa: N802
        self, request: DescribePipelineRequest, context: Context
    ) -> DescribePipelineResponse:
        """What a caller needs to check and pack events by itself."""

        async def described() -> DescribePipelineResponse:
            return self._calls.describe(request)

        return await self._shared.answered("DescribePipeline", context, described())
