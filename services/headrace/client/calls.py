"""The gateway's methods, for threads and for asyncio. Answers are the messages of `headrace.v1`."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from headrace.client.errors import call_error
from headrace.client.requests import (
    EventInput,
    FieldValue,
    Time,
    batch_request,
    features_request,
    options,
    predict_request,
)
from headrace.v1.prediction_service_pb2 import (
    GetFeaturesResponse,
    PredictBatchResponse,
    PredictResponse,
    StreamPredictResponse,
)
from headrace.v1.prediction_service_pb2_grpc import FeatureServiceStub, PredictionServiceStub

if TYPE_CHECKING:
    from typing import Self

DEFAULT_TARGET = "127.0.0.1:15051"
DEFAULT_TIMEOUT_S = 5.0


class PredictionClient:
    """Calls a gateway; safe to share between threads. Use it as a context manager, or close it.

    Args:
        target: gRPC address, host:port.
        pipeline: deployed pipeline name; empty means the only one that the gateway serves.
        timeout_s: deadline of each call, in seconds; a stream has none.
    """

    def __init__(
        self, target: str = DEFAULT_TARGET, *, pipeline: str = "", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self._pipeline = pipeline
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(target)
        self._predictions = PredictionServiceStub(self._channel)
        self._features = FeatureServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def predict(
        self,
        event: EventInput,
        *,
        ingest: bool = False,
        explain: bool = False,
        overrides: Mapping[str, float] | None = None,
        model_version: str = "",
    ) -> PredictResponse:
        """Score one event.

        Args:
            event: the event.
            ingest: also append the event to `events`; it updates the features and is not scored a second time.
            explain: return the features.
            overrides: values to use instead of computed features, by name.
            model_version: the version to use; empty for the routed one.

        Raises:
            CallError: there is no answer.
        """
        asked = options(ingest=ingest, explain=explain, overrides=overrides, model_version=model_version)
        request = predict_request(self._pipeline, event, asked)
        try:
            return self._predictions.Predict(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise call_error(error) from error

    def predict_batch(
        self,
        event_ids: Sequence[str],
        times: Sequence[Time],
        columns: Mapping[str, Sequence[FieldValue]],
        *,
        ingest: bool = False,
        explain: bool = False,
        overrides: Mapping[str, float] | None = None,
        model_version: str = "",
    ) -> PredictBatchResponse:
        """Score many events, given as columns; see `predict` for the options.

        Args:
            event_ids: ids of at most 4,096 events.
            times: when they happened.
            columns: one value per event for each field.
            ingest: as in `predict`.
            explain: as in `predict`.
            overrides: as in `predict`, for all events.
            model_version: as in `predict`.

        Raises:
            CallError: there is no answer.
            ValueError: a column mixes text and numbers, or a time has no zone.
        """
        asked = options(ingest=ingest, explain=explain, overrides=overrides, model_version=model_version)
        request = batch_request(self._pipeline, event_ids, times, columns, asked)
        try:
            return self._predictions.PredictBatch(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise call_error(error) from error

    def stream_predict(
        self, events: Iterable[EventInput], *, ingest: bool = False, explain: bool = False
    ) -> Iterator[StreamPredictResponse]:
        """Score a stream of events. Answers come in any order; an event that is wrong has its error as an answer.

        Raises:
            CallError: the stream broke.
        """
        asked = options(ingest=ingest, explain=explain, overrides=None, model_version="")
        try:
            yield from self._predictions.StreamPredict(predict_request(self._pipeline, one, asked) for one in events)
        except grpc.RpcError as error:
            raise call_error(error) from error

    def features(self, event: EventInput) -> GetFeaturesResponse:
        """The features of an event, evaluated now.

        Raises:
            CallError: there is no answer.
        """
        try:
            return self._features.GetFeatures(features_request(self._pipeline, event), timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise call_error(error) from error


class AsyncPredictionClient:
    """The same for asyncio: make it in the event loop that it is used in.

    Args:
        target: gRPC address, host:port.
        pipeline: deployed pipeline name; empty means the only one that the gateway serves.
        timeout_s: deadline of each call, in seconds; a stream has none.
    """

    def __init__(
        self, target: str = DEFAULT_TARGET, *, pipeline: str = "", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        self._pipeline = pipeline
        self._timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(target)
        # The stubs are typed for threads; over this channel their methods are awaited.
        self._predictions: Any = PredictionServiceStub(self._channel)
        self._features: Any = FeatureServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def predict(
        self,
        event: EventInput,
        *,
        ingest: bool = False,
        explain: bool = False,
        overrides: Mapping[str, float] | None = None,
        model_version: str = "",
    ) -> PredictResponse:
        """Score one event; see `PredictionClient.predict`."""
        asked = options(ingest=ingest, explain=explain, overrides=overrides, model_version=model_version)
        request = predict_request(self._pipeline, event, asked)
        try:
            answer: PredictResponse = await self._predictions.Predict(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise call_error(error) from error
        return answer

    async def predict_batch(
        self,
        event_ids: Sequence[str],
        times: Sequence[Time],
        columns: Mapping[str, Sequence[FieldValue]],
        *,
        ingest: bool = False,
        explain: bool = False,
        overrides: Mapping[str, float] | None = None,
        model_version: str = "",
    ) -> PredictBatchResponse:
        """Score many events, given as columns; see `PredictionClient.predict_batch`."""
        asked = options(ingest=ingest, explain=explain, overrides=overrides, model_version=model_version)
        request = batch_request(self._pipeline, event_ids, times, columns, asked)
        try:
            answer: PredictBatchResponse = await self._predictions.PredictBatch(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise call_error(error) from error
        return answer

    async def stream_predict(
        self, events: AsyncIterable[EventInput], *, ingest: bool = False, explain: bool = False
    ) -> AsyncIterator[StreamPredictResponse]:
        """Score a stream of events; see `PredictionClient.stream_predict`."""
        asked = options(ingest=ingest, explain=explain, overrides=None, model_version="")

        async def requests() -> AsyncIterator[Any]:
            async for one in events:
                yield predict_request(self._pipeline, one, asked)

        try:
            async for answer in self._predictions.StreamPredict(requests()):
                yield answer
        except grpc.RpcError as error:
            raise call_error(error) from error

    async def features(self, event: EventInput) -> GetFeaturesResponse:
        """The features of an event, evaluated now; see `PredictionClient.features`."""
        request = features_request(self._pipeline, event)
        try:
            answer: GetFeaturesResponse = await self._features.GetFeatures(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise call_error(error) from error
        return answer
