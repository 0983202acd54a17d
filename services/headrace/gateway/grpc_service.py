"""The gRPC methods: a thin shell around the calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Any, TypeVar

import grpc
import grpc.aio
from prometheus_client import Counter, Histogram

from headrace.gateway.access import Caller
from headrace.gateway.access_grpc import GrpcAccess
from headrace.gateway.access_policy import Permission
from headrace.gateway.calls import Calls
from headrace.gateway.errors import GatewayError
from headrace.gateway.grpc_errors import CallStatus, status_of
from headrace.gateway.grpc_streams import METHOD, AnswerStream
from headrace.gateway.metrics import REQUEST_TIME, REQUESTS
from headrace.gateway.requests import CallContext
from headrace.gateway.unsent_answers import UnsentAnswers
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


@cache
def _metrics(method: str) -> tuple[Histogram, Counter]:
    """How long calls took, and how many were answered; looking them up by their labels would cost as much again."""
    return REQUEST_TIME.labels(method), REQUESTS.labels(method, grpc.StatusCode.OK.name)


class GrpcCalls:
    """What all methods share: callers, deadlines, errors, metrics.

    Args:
        calls: of the gateway.
        timeout_s: deadline of a call that brings none, in seconds.
        access: knows who calls.
    """

    def __init__(self, calls: Calls, timeout_s: float, access: GrpcAccess) -> None:
        self.calls = calls
        self.access = access
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()

    def context(self, context: Context, channel: Channel.ValueType, caller: Caller) -> CallContext:
        """What the calls need to know of a call."""
        # None where the caller set none, whatever the type stubs say.
        remaining: float | None = context.time_remaining()
        allowed = self._timeout_s if remaining is None else remaining
        return CallContext(self._loop.time() + allowed, channel, caller)

    async def answered(
        self,
        method: str,
        permission: Permission | None,
        context: Context,
        channel: Channel.ValueType,
        answer: Callable[[CallContext], Awaitable[T]],
    ) -> T:
        """Answer a caller who has the permission (None: any known one); an error ends the call with its status."""
        began = time.perf_counter()
        status = CallStatus(grpc.StatusCode.OK, "")
        try:
            caller = self.access.caller(context)
            if permission is not None:
                caller.check(permission)
            return await answer(self.context(context, channel, caller))
        except GatewayError as error:
            self.access.denied(error, method, context)
            status = status_of(error)
        except asyncio.CancelledError:
            status = CallStatus(grpc.StatusCode.CANCELLED, "")
            raise
        except Exception as error:  # noqa: BLE001 (logged; the caller gets no more than that it happened)
            get_logger().error("call failed", method=method, exc_info=error)
            status = FAILED
        finally:
            taken, answered = _metrics(method)
            taken.observe(time.perf_counter() - began)
            if status.code is grpc.StatusCode.OK:
                answered.inc()
            else:
                REQUESTS.labels(method, status.code.name).inc()
        await context.abort(status.code, status.message, status.trailing_metadata())
        raise AssertionError("abort() returned")


class PredictionService(PredictionServiceServicer):
    """Scores events.

    Args:
        shared: what all methods share.
        stream_in_flight: events of one stream that may be under way at once.
        unsent: answers that callers have not taken yet.
    """

    def __init__(self, shared: GrpcCalls, stream_in_flight: int, unsent: UnsentAnswers) -> None:
        self._unsent = unsent
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
        return await self._shared.answered(
            "Predict", Permission.PREDICT, context, CHANNEL_UNARY, lambda call: self._calls.predict(request, call)
        )

    async def PredictBatch(self, request: PredictBatchRequest, context: Context) -> PredictBatchResponse:  # noqa: N802
        """Score many events, given as columns."""
        unsent = self._unsent.of_this_call(context.peer())

        async def scored(call: CallContext) -> PredictBatchResponse:
            unsent.require()
            answer = await self._calls.predict_batch(request, call)
            unsent.made(len(answer.event_ids))
            return answer

        return await self._shared.answered("PredictBatch", Permission.PREDICT, context, CHANNEL_BATCH, scored)

    async def StreamPredict(  # noqa: N802
        self, request_iterator: AsyncIterator[PredictRequest], context: Context
    ) -> AsyncIterator[StreamPredictResponse]:
        """Score a stream of events; each gets its answer or its error."""
        access = self._shared.access
        caller_now = access.stream(context)

        def call() -> CallContext:
            # A stream may be open for days: the deadline of an event begins when it comes, and so long must its caller
            # be one who may.
            caller = caller_now()
            caller.check(Permission.PREDICT)
            return self._shared.context(context, CHANNEL_STREAM, caller)

        try:
            call()
        except GatewayError as error:
            access.denied(error, METHOD, context)
            status = status_of(error)
            REQUESTS.labels(METHOD, status.code.name).inc()
            await context.abort(status.code, status.message, status.trailing_metadata())
        stream = AnswerStream(
            self._calls,
            call,
            self._stream_in_flight,
            lambda error: access.denied(error, METHOD, context),
            self._unsent.of_this_call(context.peer()),
        )
        reading = asyncio.create_task(stream.read(request_iterator), name="stream-predict")
        self._streams.add(reading)
        try:
            async for answer in stream.answers():
                yield answer
            if reading.cancelled():
                await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)
            if stream.ended_by is not None:
                status = status_of(stream.ended_by)
                REQUESTS.labels(METHOD, status.code.name).inc()
                await context.abort(status.code, status.message, status.trailing_metadata())
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
        return await self._shared.answered(
            "GetFeatures", Permission.FEATURES, context, CHANNEL_UNARY, lambda call: self._calls.features(request, call)
        )

    async def DescribePipeline(  # noqa: N802
        self, request: DescribePipelineRequest, context: Context
    ) -> DescribePipelineResponse:
        """What a caller needs to check and pack events by itself."""

        async def described(_: CallContext) -> DescribePipelineResponse:
            return self._calls.describe(request)

        return await self._shared.answered("DescribePipeline", None, context, CHANNEL_UNARY, described)
