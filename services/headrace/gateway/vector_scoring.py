"""Scores vectors: what the Kafka scorer writes to `predictions`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.gateway.answer_log import ONLY_LOCAL
from headrace.gateway.answer_records import AnswerRecords
from headrace.gateway.answers import Maker
from headrace.gateway.batch_queues import Priority
from headrace.gateway.errors import GatewayError
from headrace.gateway.inference import ScoredRows
from headrace.gateway.metrics import DEGRADED, SHED_SHADOW_ROWS, count_answers
from headrace.gateway.model_scores import ModelScores
from headrace.gateway.prediction_encoding import PredictionEncoder, PredictionRows
from headrace.gateway.request_batch import Rows
from headrace.gateway.requests import now_us
from headrace.gateway.routing import Routing
from headrace.gateway.shadow_scoring import ShadowScoring
from headrace.gateway.vector_predictions import answer_of, prediction_rows
from headrace.pipeline import Pipeline
from headrace.v1.prediction_pb2 import (
    CHANNEL_KAFKA,
    DEGRADATION_IDEMPOTENCY_LOCAL,
    ROLE_ANSWER,
    ROLE_REPEAT,
    Degradation,
    Prediction,
)
from headrace.v1.vector_pb2 import FeatureVector


@dataclass(slots=True)
class ScoredVectors:
    """Records for `predictions`, m.

    Attributes:
        keys: event ids.
        records: serialized `Prediction`s: an answer or a repeat for each vector, and what shadows say of them.
        repeats: how many are repeats.
        answers: how many are answers.
        degradations: what was missing for how many of the answers.
    """

    keys: list[bytes] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    repeats: int = 0
    answers: int = 0
    degradations: dict[Degradation.ValueType, int] = field(default_factory=dict)

    def count(self) -> None:
        """Count them in the metrics."""
        count_answers(CHANNEL_KAFKA, ROLE_ANSWER, self.answers)
        count_answers(CHANNEL_KAFKA, ROLE_REPEAT, self.repeats)
        for missing, count in self.degradations.items():
            DEGRADED.labels(Degradation.Name(missing).removeprefix("DEGRADATION_").lower()).inc(count)


class VectorScoring:
    """Scores the vectors of a batch together.

    Args:
        pipeline: the declaration.
        routing: which version answers.
        score: scores rows.
        records: first answers by event id.
        shadows: scores beside the answers.
        encoder: of the pipeline.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        routing: Routing,
        score: ModelScores,
        records: AnswerRecords,
        shadows: ShadowScoring,
        encoder: PredictionEncoder,
    ) -> None:
        self._decision = pipeline.model.decision
        self._routing = routing
        self._score = score
        self._records = records
        self._shadows = shadows
        self._encoder = encoder
        self._key = pipeline.entity_fields.index(pipeline.key_field)

    async def score(self, vectors: Sequence[FeatureVector]) -> ScoredVectors:
        """Score vectors of the features that the route table's versions take.

        Raises:
            GatewayError: nothing answers, not even the model in this process.
        """
        scored = ScoredVectors()
        if not vectors:
            return scored
        values = np.array([vector.values for vector in vectors], np.float64)
        rows = prediction_rows(vectors, values)
        chosen = self._routing.choose(rows.entities[self._key] if self._routing.canary() else ())
        parts = [(one.choice, np.arange(len(rows)) if one.rows is None else one.rows) for one in chosen]
        blocks = await asyncio.gather(
            *(self._score(choice, values[at], priority=Priority.STREAM) for choice, at in parts)
        )
        records: list[bytes] = []
        claims: list[bytes] = []
        order: list[int] = []
        for (_, at), found in zip(parts, blocks, strict=True):
            first = 0
            for block in found:
                of_block = at[first : first + len(block.scores)]
                first += len(block.scores)
                order += of_block.tolist()
                full, stripped = self._encoded(rows, of_block, block, scored)
                records += full
                claims += stripped
        event_ids = [rows.event_ids[row] for row in order]
        answered = await self._claim(event_ids, records, claims, scored)
        scored.keys += [event_id.encode() for event_id in event_ids]
        scored.records += records
        await self._score_shadows(rows.take(np.array([order[i] for i in answered], np.intp)), scored)
        return scored

    def _encoded(
        self, rows: PredictionRows, at: Rows, block: ScoredRows, scored: ScoredVectors
    ) -> tuple[list[bytes], list[bytes]]:
        """Predictions as they are logged, and as they are recorded: without the vector."""
        maker = Maker(block.choice, block.in_process)
        untrained = block.choice.version.untrained
        decide = self._decision.decide
        scores = block.scores.astype(np.float64)
        for missing in maker.degradations:
            scored.degradations[missing] = scored.degradations.get(missing, 0) + len(at)
        decisions = [decide(score, untrained=untrained) for score in scores.tolist()]
        of_block, now = rows.take(at), now_us()
        full, stripped = (
            self._encoder.encode(
                of_block,
                role=ROLE_ANSWER,
                scores=scores,
                decisions=decisions,
                maker=maker,
                degradations=maker.degradations,
                answered_us=now,
                with_vector=with_vector,
            )
            for with_vector in (True, False)
        )
        return full, stripped

    async def _claim(
        self, event_ids: Sequence[str], records: list[bytes], claims: Sequence[bytes], scored: ScoredVectors
    ) -> list[int]:
        """First answers stay; of events that have one already, its repeat. Returns the indices of the answers."""
        found, only_local = await self._records.claim(event_ids, claims)
        answered: list[int] = []
        for index, before in enumerate(found):
            if only_local:
                records[index] += ONLY_LOCAL
            if before is not None:
                answer = answer_of(before, Prediction.FromString(records[index]))
                records[index] = answer.SerializeToString()
                if answer.role == ROLE_REPEAT:
                    scored.repeats += 1
                    continue
            scored.answers += 1
            answered.append(index)
        if only_local:
            scored.degradations[DEGRADATION_IDEMPOTENCY_LOCAL] = len(answered)
        return answered

    async def _score_shadows(self, rows: PredictionRows, scored: ScoredVectors) -> None:
        for choice in self._routing.shadows() if len(rows) else ():
            try:
                scored.records += await self._shadows.records(choice, rows, ())
            except GatewayError:
                # A score that nobody was promised.
                SHED_SHADOW_ROWS.inc(len(rows))
                continue
            scored.keys += [event_id.encode() for event_id in rows.event_ids]
