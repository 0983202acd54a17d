"""The calls of the gateway over their messages, whatever transport brings them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headrace.gateway.access import ANYONE
from headrace.gateway.admission import Admission
from headrace.gateway.answer_messages import features_response, predict_batch_response, predict_response
from headrace.gateway.answers import Answer, joined
from headrace.gateway.batch_queues import Priority
from headrace.gateway.batching import Batcher
from headrace.gateway.errors import GatewayError
from headrace.gateway.pipeline_description import describe
from headrace.gateway.request_messages import check_options, check_pipeline, checked_batch, checked_event
from headrace.gateway.requests import CallContext, ScoringRequest, now_us
from headrace.gateway.scoring import Scoring
from headrace.gateway.spool import Spool
from headrace.pipeline import Pipeline
from headrace.pipeline.events import EventColumns
from headrace.platform.event_codec import CheckedEvent
from headrace.v1.prediction_pb2 import CHANNEL_STREAM, Channel
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
)

RequestBatcher = Batcher[None, ScoringRequest, Answer | GatewayError]


class Calls:
    """Answers messages.

    Args:
        pipeline: the declaration.
        deployed: name of the deployed pipeline.
        scoring: the core.
        requests: puts the requests of many callers into one batch for the core.
        spool: asked for room before work is done.
        admission: decides which calls may enter.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        deployed: str,
        scoring: Scoring,
        requests: RequestBatcher,
        spool: Spool,
        admission: Admission,
    ) -> None:
        self.pipeline = pipeline
        self._deployed = deployed
        self._names = pipeline.feature_names
        self._scoring = scoring
        self._requests = requests
        self._spool = spool
        self._admission = admission

    async def predict(self, message: PredictRequest, context: CallContext) -> PredictResponse:
        """Score one event.

        Raises:
            GatewayError: by what the caller can do.
        """
        return self.predicted(message, await self.begin(message, context))

    def begin(self, message: PredictRequest, context: CallContext) -> asyncio.Future[Answer | GatewayError]:
        """The same in two steps, for who has many under way: its answer to be, which `predicted` makes a message of.

        Raises:
            GatewayError: by what the caller can do.
        """
        received_us = now_us()
        check_pipeline(message.pipeline, self._deployed)
        _check_permissions(context, message.options)
        self._admit(1, context)
        event = checked_event(self.pipeline, message.event)
        if not message.HasField("options"):
            return self._enqueue(ScoringRequest((event,), context.channel, received_us, context.deadline))
        return self._enqueue(_with_options((event,), message.options, context, received_us))

    def early_s(self) -> float:
        """How much too early an event of a stream would be now, in seconds; who reads a stream waits so long."""
        return self._admission.early_s(Priority.STREAM)

    def predicted(self, message: PredictRequest, answer: Answer | GatewayError) -> PredictResponse:
        """The second step.

        Raises:
            GatewayError: by what the caller can do.
        """
        if isinstance(answer, GatewayError):
            raise answer
        return predict_response(answer, self._names, explain=message.options.explain)

    async def predict_batch(self, message: PredictBatchRequest, context: CallContext) -> PredictBatchResponse:
        """Score many events, given as columns.

        Raises:
            GatewayError: by what the caller can do.
        """
        received_us = now_us()
        check_pipeline(message.pipeline, self._deployed)
        _check_permissions(context, message.options)
        self._admit(max(1, len(message.event_ids)), context)
        events = checked_batch(self.pipeline, message)
        answer = await self._answer(_with_options(events, message.options, context, received_us))
        return predict_batch_response(answer, self._names, explain=message.options.explain)

    async def features(self, message: GetFeaturesRequest, context: CallContext) -> GetFeaturesResponse:
        """The features of one event, evaluated now.

        Raises:
            GatewayError: by what the caller can do.
        """
        received_us = now_us()
        check_pipeline(message.pipeline, self._deployed)
        self._admit(1, context)
        event = checked_event(self.pipeline, message.event)
        request = ScoringRequest((event,), context.channel, received_us, context.deadline, features_only=True)
        return features_response(await self._answer(request), self.pipeline, now_us())

    def describe(self, message: DescribePipelineRequest) -> DescribePipelineResponse:
        """What a caller needs to check and pack events by itself.

        Raises:
            NotFoundError: it is another pipeline than this gateway serves.
        """
        check_pipeline(message.pipeline, self._deployed)
        return describe(self.pipeline, self._deployed)

    async def _answer(self, request: ScoringRequest) -> Answer:
        most = self._requests.max_rows
        if len(request.events) <= most:
            answers = [await self._enqueue(request)]
        else:
            parts = [request.part(first, first + most) for first in range(0, len(request.events), most)]
            answers = await asyncio.gather(*map(self._enqueue, parts))
        for one in answers:
            if isinstance(one, GatewayError):
                raise one
        return joined([one for one in answers if isinstance(one, Answer)])

    def _admit(self, rows: int, context: CallContext) -> None:
        # Before anything else is done for it: when there is too much, a refusal must cost little.
        caller = context.caller
        self._admission.admit(rows, caller.name, _priority(context.channel), caller.quota_rows_per_s)

    def _enqueue(self, request: ScoringRequest) -> asyncio.Future[Answer | GatewayError]:
        if not request.features_only:
            self._spool.require_room()
        self._scoring.check(request)
        rows, priority = len(request.events), _priority(request.channel)
        return self._requests.enqueue(None, request, rows, request.deadline, priority)


def _priority(channel: Channel.ValueType) -> Priority:
    return Priority.STREAM if channel == CHANNEL_STREAM else Priority.INTERACTIVE


def _check_permissions(context: CallContext, options: PredictOptions) -> None:
    if context.caller is not ANYONE:
        context.caller.check_options(
            ingest=options.ingest,
            explain=options.explain,
            overrides=bool(options.overrides),
            pinned=bool(options.model_version),
        )


def _with_options(
    events: Sequence[CheckedEvent] | EventColumns, options: PredictOptions, context: CallContext, received_us: int
) -> ScoringRequest:
    check_options(options)
    return ScoringRequest(
        events,
        context.channel,
        received_us,
        context.deadline,
        options.ingest,
        dict(options.overrides),
        options.model_version,
    )
