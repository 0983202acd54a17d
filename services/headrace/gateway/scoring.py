"""The core that every transport calls: read features, evaluate, batch, route, infer, log."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from headrace.gateway.answer_log import DraftAnswer, repeat_of
from headrace.gateway.batching import Batcher
from headrace.gateway.errors import InvalidRequestError, NotServingError, Violation
from headrace.gateway.feature_reading import FeatureRows
from headrace.gateway.inference import ScoredRows
from headrace.gateway.metrics import ANSWERS, DEGRADED, REPEATS
from headrace.gateway.requests import EvaluatedFeatures, ScoringRequest
from headrace.gateway.routing import Choice, Routing
from headrace.gateway.spool import Spool
from headrace.pipeline import Pipeline
from headrace.pipeline.events import FloatArray
from headrace.platform.event_codec import CheckedEvent, entity_ids, pack_event
from headrace.v1.prediction_pb2 import (
    DEGRADATION_MODEL_IN_PROCESS,
    ROLE_ANSWER,
    ROLE_REPEAT,
    Channel,
    Degradation,
    Prediction,
    Role,
)

FeatureBatcher = Batcher[None, Sequence[CheckedEvent], FeatureRows]
ModelBatcher = Batcher[Choice, npt.NDArray[np.float32], ScoredRows]
LogBatcher = Batcher[None, Sequence[DraftAnswer], list[Prediction]]

T = TypeVar("T")


def now_us() -> int:
    """Wall clock in microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


class Scoring:
    """Answers events.

    Args:
        pipeline: the declaration.
        instance: name of this process, part of prediction ids.
        routing: which version answers.
        features: reads features of events in batches.
        models: scores rows in batches.
        log: logs answers in batches.
        spool: asked for room before work is done.
        clock: wall clock in microseconds.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        instance: str,
        routing: Routing,
        features: FeatureBatcher,
        models: ModelBatcher,
        log: LogBatcher,
        spool: Spool,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self.pipeline = pipeline
        self._routing = routing
        self._features = features
        self._models = models
        self._log = log
        self._spool = spool
        self._clock = clock
        self._columns = {name: i for i, name in enumerate(pipeline.feature_names)}
        # A new prefix at each start: an id never comes twice.
        self._id_prefix = f"g-{instance}-{secrets.token_hex(5)}-"
        self._ids = itertools.count(1)

    async def predict(self, request: ScoringRequest) -> list[Prediction]:
        """The answers to the events of a call, in order. They are logged when this returns.

        Raises:
            GatewayError: by what the caller can do.
        """
        self._spool.require_room()
        columns = self._override_columns(request)
        choice = self._choice(request.model_version)
        read = await self._read(request.events, request.deadline)
        values = np.concatenate([rows.values for rows in read]) if len(read) > 1 else read[0].values
        if columns:
            values = values.copy()
            values[:, list(columns)] = list(columns.values())
        answers = [answer for rows in read for answer in rows.answers]
        new = [i for i, answer in enumerate(answers) if answer is None]
        # Chosen again: a table that came while the features were read counts.
        choice = choice if request.model_version else self._choice("")
        scored = await self.score(choice, values[new] if len(new) < len(values) else values, request.deadline)
        drafts: list[DraftAnswer | None] = [None] * len(answers)
        at = iter(new)
        for part in scored:
            for score in part.scores.tolist():
                i = next(at)
                drafts[i] = self._draft(request, i, read, values[i], part, score)
        for i, answer in enumerate(answers):
            if answer is not None:
                drafts[i] = self._repeat(request, i, answer)
        ready = [draft for draft in drafts if draft is not None]
        chunks = list(chunked(ready, self._log.max_rows))
        logged = await asyncio.gather(
            *(self._log.submit(None, chunk, len(chunk), request.deadline) for chunk in chunks)
        )
        predictions = [prediction for chunk in logged for prediction in chunk]
        count_answers(predictions)
        return predictions

    async def features(self, event: CheckedEvent, deadline: float) -> EvaluatedFeatures:
        """The features of one event, evaluated now.

        Raises:
            GatewayError: by what the caller can do.
        """
        rows = (await self._read([event], deadline))[0]
        return EvaluatedFeatures(
            rows.values[0],
            rows.event_positions,
            rows.outcome_positions,
            rows.newest_us,
            rows.degradations,
        )

    async def score(self, choice: Choice, values: FloatArray, deadline: float | None = None) -> list[ScoredRows]:
        """Scores of rows, in order, as blocks that may have been scored by different versions.

        Args:
            choice: the version to use.
            values: feature vectors, shape (n, width).
            deadline: time of the event loop after which a score is of no use.

        Raises:
            GatewayError: by what the caller can do.
        """
        matrix = values.astype(np.float32)
        most = self._models.max_rows
        with self._routing.using(choice):
            return list(
                await asyncio.gather(
                    *(
                        self._models.submit(choice, part, len(part), deadline)
                        for part in (matrix[i : i + most] for i in range(0, len(matrix), most))
                    )
                )
            )

    def _override_columns(self, request: ScoringRequest) -> dict[int, float]:
        wrong = [
            Violation(f"options.overrides.{name}", f"{name} is no feature; allowed are {', '.join(self._columns)}")
            for name in request.overrides
            if name not in self._columns
        ]
        if wrong:
            raise InvalidRequestError(wrong)
        return {self._columns[name]: value for name, value in request.overrides.items()}

    def _choice(self, version: str) -> Choice:
        choice = self._routing.pinned(version) if version else self._routing.champion()
        if choice.version.features_fingerprint != self.pipeline.features_fingerprint:
            raise NotServingError(
                f"model version {choice.version.version} takes features {choice.version.features_fingerprint:016x}; "
                f"this gateway computes {self.pipeline.features_fingerprint:016x}"
            )
        return choice

    async def _read(self, events: Sequence[CheckedEvent], deadline: float) -> list[FeatureRows]:
        return list(
            await asyncio.gather(
                *(
                    self._features.submit(None, chunk, len(chunk), deadline)
                    for chunk in chunked(events, self._features.max_rows)
                )
            )
        )

    def _draft(
        self,
        request: ScoringRequest,
        index: int,
        read: Sequence[FeatureRows],
        values: FloatArray,
        scored: ScoredRows,
        score: float,
    ) -> DraftAnswer:
        event = request.events[index]
        rows = read[index // self._features.max_rows]
        prediction = self.prediction(scored, score, rows.degradations)
        prediction.prediction_id = f"{self._id_prefix}{next(self._ids)}"
        prediction.event_id = event.event_id
        prediction.event_time_us = event.time_us
        prediction.features_fingerprint = self.pipeline.features_fingerprint
        prediction.features.extend(values.tolist())
        entities = entity_ids(self.pipeline, event)
        prediction.entities.extend(entities)
        prediction.event_positions.extend(rows.event_positions)
        prediction.outcome_positions.extend(rows.outcome_positions)
        prediction.features_time_us = rows.newest_us
        prediction.channel = request.channel
        prediction.ingested = request.ingest
        prediction.received_time_us = request.received_us
        prediction.overridden.extend(sorted(request.overrides))
        if not request.ingest:
            return DraftAnswer(prediction)
        return DraftAnswer(prediction, *self._ingested(event))

    def _ingested(self, event: CheckedEvent) -> tuple[bytes, bytes]:
        """The event as it goes to `events`, and its key."""
        answered = CheckedEvent(event.event_id, event.time_us, event.texts, event.numbers, answered=True)
        key_entity = [entity.name for entity in self.pipeline.entities].index(self.pipeline.key)
        return (
            pack_event(self.pipeline, answered).SerializeToString(),
            entity_ids(self.pipeline, event)[key_entity].encode(),
        )

    def _repeat(self, request: ScoringRequest, index: int, record: bytes) -> DraftAnswer:
        like = Prediction(
            prediction_id=f"{self._id_prefix}{next(self._ids)}",
            channel=request.channel,
            received_time_us=request.received_us,
            answered_time_us=self._clock(),
        )
        return DraftAnswer(repeat_of(record, like))

    def prediction(self, scored: ScoredRows, score: float, missing: Sequence[Degradation.ValueType] = ()) -> Prediction:
        """What a score and the version that made it say, with the role of an answer."""
        version = scored.choice.version
        prediction = Prediction(
            role=ROLE_ANSWER,
            score=score,
            decision=self.pipeline.model.decision.decide(score, untrained=version.untrained),
            model_version=version.version,
            route=scored.choice.route,
            route_epoch=scored.choice.epoch,
            untrained=version.untrained,
            model_time_us=version.model_time_us,
            answered_time_us=self._clock(),
            degradations=missing,
        )
        if scored.in_process:
            prediction.degradations.append(DEGRADATION_MODEL_IN_PROCESS)
        return prediction


def count_answers(predictions: Sequence[Prediction]) -> None:
    """Count answers in the metrics."""
    for prediction in predictions:
        channel = Channel.Name(prediction.channel).removeprefix("CHANNEL_").lower()
        ANSWERS.labels(channel, Role.Name(prediction.role).removeprefix("ROLE_").lower()).inc()
        if prediction.role == ROLE_REPEAT:
            REPEATS.labels(channel).inc()
        for missing in prediction.degradations:
            DEGRADED.labels(Degradation.Name(missing).removeprefix("DEGRADATION_").lower()).inc()


def chunked(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Parts of at most `size` items, in order."""
    return [items[i : i + size] for i in range(0, len(items), size)]
