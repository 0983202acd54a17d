"""The gRPC methods: a thin shell around the core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from headrace.gateway.errors import GatewayError
from headrace.gateway.grpc_errors import CallStatus, status_of
from headrace.gateway.grpc_requests import (
    batch_response,
    check_options,
    check_pipeline,
    checked_batch,
    checked_event,
    response,
)
from headrace.gateway.metrics import REQUEST_TIME, REQUESTS
from headrace.gateway.pipeline_description import describe
from headrace.gateway.requests import ScoringRequest, milliseconds_since
from headrace.gateway.scoring import Scoring, now_us
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
    StreamError,
    StreamPredictResponse,
)
from headrace.v1.prediction_service_pb2_grpc import FeatureServiceServicer, PredictionServiceServicer

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]

STOPPING = "the gateway is stopping; call again"
FAILED = CallStatus(grpc.StatusCode.INTERNAL, "the gateway failed; its log says more")


class Calls:
    """What all methods share: deadlines, errors, metrics.

    Args:
        timeout_s: deadline of a call that brings none, in seconds.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def deadline(self, context: Context) -> float:
        """When an answer is of no use any more, as time of the event loop."""
        # None where the caller set none, whatever the type stubs say.
        remaining: float | None = context.time_remaining()
        allowed = self._timeout_s if remaining is None else remaining
        return asyncio.get_running_loop().time() + allowed

    async def answered(self, method: str, context: Context, answer: Callable[[], Awaitable[T]]) -> T:
        """Run a call; an error ends it with its status."""
        began = time.perf_counter()
        status = CallStatus(grpc.StatusCode.OK, "")
        try:
            return await answer()
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
        scoring: the core.
        deployed: name of the deployed pipeline.
        calls: deadlines, errors, metrics.
        stream_in_flight: events of one stream that may be under way at once.
    """

    def __init__(self, scoring: Scoring, deployed: str, calls: Calls, stream_in_flight: int) -> None:
        self._scoring = scoring
        self._pipeline = scoring.pipeline
        self._deployed = deployed
        self._calls = calls
        self._stream_in_flight = stream_in_flight
        self._streams: set[asyncio.Task[None]] = set()

    def end_streams(self) -> None:
        """Take in nothing more from the streams; each ends when it has its answers, with UNAVAILABLE."""
        for taking in self._streams:
            taking.cancel()

    async def Predict(self, request: PredictRequest, context: Context) -> PredictResponse:  # noqa: N802 (the contract)
        """Score one event."""
        deadline = self._calls.deadline(context)
        return await self._calls.answered("Predict", context, lambda: self._one(request, CHANNEL_UNARY, deadline))

    async def PredictBatch(self, request: PredictBatchRequest, context: Context) -> PredictBatchResponse:  # noqa: N802
        """Score many events, given as columns."""
        deadline = self._calls.deadline(context)
        return await self._calls.answered("PredictBatch", context, lambda: self._many(request, deadline))

    async def StreamPredict(  # noqa: N802
        self, request_iterator: AsyncIterator[PredictRequest], context: Context
    ) -> AsyncIterator[StreamPredictResponse]:
        """Score a stream of events; each gets its answer or its error."""
        # A stream may be open for days: the deadline of an event begins when it comes.
        answers: asyncio.Queue[StreamPredictResponse | None] = asyncio.Queue()
        room = asyncio.Semaphore(self._stream_in_flight)

        async def answer(request: PredictRequest) -> None:
            await answers.put(await self._of_stream(request, context))

        async def take(under_way: asyncio.TaskGroup) -> None:
            async for request in request_iterator:
                # Given back when the answer is written: a client that does not read is not read from.
                await room.acquire()
                under_way.create_task(answer(request))

        cut_short = False

        async def read() -> None:
            nonlocal cut_short
            async with asyncio.TaskGroup() as under_way:
                taking = under_way.create_task(take(under_way))
                self._streams.add(taking)
                await asyncio.wait({taking})
                self._streams.discard(taking)
            cut_short = taking.cancelled()
            await answers.put(None)

        reading = asyncio.create_task(read(), name="stream-predict")
        try:
            while True:
                ready = asyncio.ensure_future(answers.get())
                await asyncio.wait({ready, reading}, return_when=asyncio.FIRST_COMPLETED)
                if not ready.done():
                    ready.cancel()
                    if reading.cancelled() or reading.exception() is not None:
                        await context.abort(FAILED.code, FAILED.message)
                    continue
                one = ready.result()
                if one is None:
                    if cut_short:
                        await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)
                    return
                yield one
                room.release()
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    async def _of_stream(self, request: PredictRequest, context: Context) -> StreamPredictResponse:
        event_id = request.event.event_id
        began = time.perf_counter()
        deadline = self._calls.deadline(context)
        try:
            prediction = await self._one(request, CHANNEL_STREAM, deadline)
        except GatewayError as error:
            status = status_of(error)
        except Exception as error:  # noqa: BLE001 (logged; the caller gets no more than that it happened)
            get_logger().error("call failed", method="StreamPredict", exc_info=error)
            status = FAILED
        else:
            REQUEST_TIME.labels("StreamPredict").observe(time.perf_counter() - began)
            REQUESTS.labels("StreamPredict", "OK").inc()
            return StreamPredictResponse(event_id=event_id, prediction=prediction)
        REQUESTS.labels("StreamPredict", status.code.name).inc()
        failure = StreamError(code=status.code.value[0], message=status.message, retry_after_ms=status.retry_after_ms)
        return StreamPredictResponse(event_id=event_id, error=failure)

    async def _one(self, request: PredictRequest, channel: Channel.ValueType, deadline: float) -> PredictResponse:
        received_us = now_us()
        check_pipeline(request.pipeline, self._deployed)
        check_options(request.options)
        event = checked_event(self._pipeline, request.event)
        options = request.options
        predictions = await self._scoring.predict(
            ScoringRequest(
                [event], channel, received_us, deadline, options.ingest, options.overrides, options.model_version
            )
        )
        return response(predictions[0], self._pipeline.feature_names, explain=options.explain)

    async def _many(self, request: PredictBatchRequest, deadline: float) -> PredictBatchResponse:
        received_us = now_us()
        check_pipeline(request.pipeline, self._deployed)
        check_options(request.options)
        events = checked_batch(self._pipeline, request)
        options = request.options
        predictions = await self._scoring.predict(
            ScoringRequest(
                events, CHANNEL_BATCH, received_us, deadline, options.ingest, options.overrides, options.model_version
            )
        )
        return batch_response(predictions, self._pipeline.feature_names, explain=options.explain)


class FeatureService(FeatureServiceServicer):
    """Reads features without scoring.

    Args:
        scoring: the core.
        deployed: name of the deployed pipeline.
        calls: deadlines, errors, metrics.
    """

    def __init__(self, scoring: Scoring, deployed: str, calls: Calls) -> None:
        self._scoring = scoring
        self._deployed = deployed
        self._calls = calls

    async def GetFeatures(self, request: GetFeaturesRequest, context: Context) -> GetFeaturesResponse:  # noqa: N802
        """The vector of one event, evaluated now."""
        deadline = self._calls.deadline(context)
        return await self._calls.answered("GetFeatures", context, lambda: self._features(request, deadline))

    async def DescribePipeline(  # noqa: N802
        self, request: DescribePipelineRequest, context: Context
    ) -> DescribePipelineResponse:
        """What a caller needs to check and pack events by itself."""
        return await self._calls.answered("DescribePipeline", context, lambda: self._description(request))

    async def _description(self, request: DescribePipelineRequest) -> DescribePipelineResponse:
        check_pipeline(request.pipeline, self._deployed)
        return describe(self._scoring.pipeline, self._deployed)

    async def _features(self, request: GetFeaturesRequest, deadline: float) -> GetFeaturesResponse:
        check_pipeline(request.pipeline, self._deployed)
        pipeline = self._scoring.pipeline
        found = await self._scoring.features(checked_event(pipeline, request.event), deadline)
        return GetFeaturesResponse(
            features_fingerprint=pipeline.features_fingerprint,
            values=found.values.tolist(),
            names=pipeline.feature_names,
            event_positions=found.event_positions,
            outcome_positions=found.outcome_positions,
            features_age_ms=milliseconds_since(found.newest_us, now_us()),
            degradations=found.degradations,
        )
