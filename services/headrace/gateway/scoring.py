"""The core that every transport calls: read features, evaluate, route, infer, log, for all requests of a batch.

A request waits once, for its batch. What all of a batch share is done once for it, and what is done for each event is
done in columns.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import secrets
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from headrace.gateway.answer_log import AnswerLog, NewAnswers
from headrace.gateway.answers import NONE, Answer, AnsweredRows, Maker
from headrace.gateway.errors import GatewayError, InvalidRequestError, NotServingError, Violation
from headrace.gateway.feature_reading import FeatureReading
from headrace.gateway.inference import ScoredRows
from headrace.gateway.metrics import count_answers
from headrace.gateway.model_scores import ModelScores
from headrace.gateway.prediction_encoding import (
    PredictionEncoder,
    PredictionRows,
    call_fields,
    freshness_field,
    position_fields,
    received_fields,
)
from headrace.gateway.repeats import repeat_of
from headrace.gateway.request_batch import RequestBatch, Rows, ScoredBlock, columns_of, first_rows
from headrace.gateway.requests import ScoringRequest, now_us
from headrace.gateway.routing import Choice, Routing
from headrace.gateway.shadow_scoring import ShadowScoring
from headrace.pipeline import Pipeline
from headrace.pipeline.events import EventColumns, FloatArray
from headrace.platform.event_codec import CheckedEvent, pack_event
from headrace.v1.prediction_pb2 import (
    DEGRADATION_IDEMPOTENCY_LOCAL,
    ROLE_ANSWER,
    ROLE_REPEAT,
    ROUTE_PINNED,
    Channel,
    Degradation,
    Prediction,
    Role,
)


class Scoring:
    """Answers events; `answer` is what the batcher of the requests calls.

    Args:
        pipeline: the declaration.
        instance: name of this process, part of prediction ids.
        routing: which version answers.
        reading: reads features.
        score: scores rows.
        log: logs answers.
        shadows: scores beside the answers.
        encoder: of the pipeline.
        clock: wall clock in microseconds.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        instance: str,
        routing: Routing,
        reading: FeatureReading,
        score: ModelScores,
        log: AnswerLog,
        shadows: ShadowScoring,
        encoder: PredictionEncoder,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self.pipeline = pipeline
        self._routing = routing
        self._reading = reading
        self._score = score
        self._log = log
        self._shadows = shadows
        self._clock = clock
        self._encoder = encoder
        self._columns = {name: i for i, name in enumerate(pipeline.feature_names)}
        # A new prefix at each start: an id never comes twice.
        self._id_prefix = f"g-{instance}-{secrets.token_hex(5)}-"
        self._ids = itertools.count(1)

    def check(self, request: ScoringRequest) -> None:
        """Refuse what can be refused before a request waits for its batch.

        Raises:
            InvalidRequestError: an override of something that is no feature.
            NotFoundError: there is no such version.
            NotServingError: there is no version to answer with.
        """
        wrong = [
            Violation(f"options.overrides.{name}", f"{name} is no feature; allowed are {', '.join(self._columns)}")
            for name in request.overrides
            if name not in self._columns
        ]
        if wrong:
            raise InvalidRequestError(wrong)
        if not request.features_only:
            version = request.model_version
            self._fitting(self._routing.pinned(version) if version else self._routing.champion())

    async def answer(self, _: None, requests: list[ScoringRequest]) -> list[Answer | GatewayError]:
        """The answers to the requests of a batch, in order, each logged; or why there is none.

        Raises:
            OverloadedError: the answers cannot be logged.
        """
        events = columns_of(self.pipeline, requests)
        read = await self._reading.read(events)
        batch = RequestBatch(requests, events, read, self._overridden(requests, read.values))
        self._route(batch)
        await self._infer(batch)
        answered = self._answered(batch)
        await self._log_answers(batch, answered)
        self._count(batch, answered)
        return [
            batch.failed.get(index) or Answer(answered, first, len(request.events))
            for index, (first, request) in enumerate(zip(batch.firsts, requests, strict=True))
        ]

    def _overridden(self, requests: Sequence[ScoringRequest], values: FloatArray) -> FloatArray:
        if not any(request.overrides for request in requests):
            return values
        values = values.copy()
        for first, request in zip(first_rows(requests), requests, strict=True):
            for name, value in request.overrides.items():
                values[first : first + len(request.events), self._columns[name]] = value
        return values

    def _route(self, batch: RequestBatch) -> None:
        """Say which rows go to which version; rows that were answered before go to none."""
        if batch.is_plain:
            keys = batch.events.texts[self.pipeline.key_field] if self._routing.canary() else []
            for one in self._routing.choose(keys):
                batch.parts.append((one.choice, np.arange(len(batch.events)) if one.rows is None else one.rows))
                # A table may have come since the request was checked.
                self._fitting(one.choice)
            return
        known = np.array([answer is not None for answer in batch.read.answers])
        routed = np.zeros(len(known), np.bool_)
        pinned: dict[str, list[Rows]] = {}
        for first, request in zip(batch.firsts, batch.requests, strict=True):
            rows = np.arange(first, first + len(request.events))
            rows = rows[~known[rows]]
            if request.model_version:
                pinned.setdefault(request.model_version, []).append(rows)
            elif not request.features_only:
                routed[rows] = True
        open_rows = np.flatnonzero(routed)
        if len(open_rows):
            keys = batch.events.texts[self.pipeline.key_field]
            for one in self._routing.choose([keys[row] for row in open_rows.tolist()]):
                batch.parts.append((one.choice, open_rows if one.rows is None else open_rows[one.rows]))
                self._fitting(one.choice)
        for version, of in pinned.items():
            rows = np.concatenate(of)
            try:
                batch.parts.append((self._routing.pinned(version), rows))
                self._fitting(batch.parts[-1][0])
            except GatewayError as error:
                batch.fail(rows, error)

    async def _infer(self, batch: RequestBatch) -> None:
        """Score each part; one that fails takes only its own requests with it."""
        parts = [(choice, rows) for choice, rows in batch.parts if len(rows)]
        if len(parts) == 1:
            found = [await self._tried(parts[0][0], parts[0][1], batch)]
        else:
            found = await asyncio.gather(*(self._tried(choice, rows, batch) for choice, rows in parts))
        for (_, rows), scores in zip(parts, found, strict=True):
            if isinstance(scores, GatewayError):
                batch.fail(rows, scores)
            else:
                first = 0
                for block in scores:
                    of_block = rows[first : first + len(block.scores)]
                    first += len(block.scores)
                    maker = Maker(block.choice, block.in_process)
                    batch.scored.append(ScoredBlock(of_block, maker, block.scores.astype(np.float64)))
        batch.drop_failed()

    async def _tried(self, choice: Choice, rows: Rows, batch: RequestBatch) -> list[ScoredRows] | GatewayError:
        values = batch.values if len(rows) == len(batch.events) else batch.values[rows]
        try:
            return await self._score(choice, values, batch.deadline)
        except GatewayError as error:
            return error

    def _answered(self, batch: RequestBatch) -> AnsweredRows:
        read, count = batch.read, len(batch.events)
        scores, decisions = [math.nan] * count, [""] * count
        makers: list[Maker | None] = [None] * count
        decide = self.pipeline.model.decision.decide
        for block in batch.scored:
            untrained = block.maker.choice.version.untrained
            for row, score in zip(block.rows.tolist(), block.scores.tolist(), strict=True):
                scores[row], makers[row] = score, block.maker
                decisions[row] = decide(score, untrained=untrained)
        return AnsweredRows(
            read.columns.ids,
            [f"{self._id_prefix}{number}" for number in itertools.islice(self._ids, count)],
            scores,
            decisions,
            makers,
            batch.values,
            read.states,
            NONE,
            self._clock(),
        )

    async def _log_answers(self, batch: RequestBatch, answered: AnsweredRows) -> None:
        """Log the answers; adds to them what is known of their events by then."""
        rows = self._prediction_rows(batch, answered)
        before = {
            row: self._repeat(batch, answered, row, record)
            for row, record in enumerate(batch.read.answers)
            if record is not None and not batch.request_of(row).features_only
        }
        new, order = self._new_answers(batch, answered, rows)
        if not order and not before:
            return
        logged = await self._log.log(new, list(before.values()))
        answered.repeats = before | {order[index]: repeat for index, repeat in logged.repeats.items()}
        if new.events:
            ingested = [row for row in order if batch.request_of(row).ingest]
            self._reading.changing(batch.events.take(np.array(ingested, np.intp)))
        if logged.only_local:
            answered.degradations += (DEGRADATION_IDEMPOTENCY_LOCAL,)
        if self._routing.shadows():
            beside = np.array([row for row in order if _is_routed(answered, row)], np.intp)
            self._shadows.add(rows.take(beside), answered.degradations_of(order[0]))

    def _count(self, batch: RequestBatch, answered: AnsweredRows) -> None:
        counts: Counter[tuple[Channel.ValueType, Role.ValueType, tuple[Degradation.ValueType, ...]]] = Counter()
        for index, (first, request) in enumerate(zip(batch.firsts, batch.requests, strict=True)):
            if index in batch.failed or request.features_only:
                continue
            rows = range(first, first + len(request.events))
            if len(rows) > 1 and answered.is_uniform and not answered.repeats:
                counts[request.channel, ROLE_ANSWER, answered.degradations_of(first)] += len(rows)
                continue
            for row in rows:
                repeat = answered.repeats.get(row)
                if repeat is None:
                    counts[request.channel, ROLE_ANSWER, answered.degradations_of(row)] += 1
                else:
                    counts[request.channel, ROLE_REPEAT, tuple(repeat.degradations)] += 1
        for (channel, role, missing), count in counts.items():
            count_answers(channel, role, count, missing)

    def _prediction_rows(self, batch: RequestBatch, answered: AnsweredRows) -> PredictionRows:
        read = batch.read
        stood = {id(state): state for state in read.states}
        positions = {at: position_fields(one.event_positions, one.outcome_positions) for at, one in stood.items()}
        freshness = {at: freshness_field(one.newest_us) for at, one in stood.items()}
        calls: list[bytes] = []
        received = received_fields([request.received_us for request in batch.requests])
        for request, at in zip(batch.requests, received, strict=True):
            overridden = tuple(sorted(request.overrides)) if request.overrides else ()
            before, after = call_fields(request.channel, b"", overridden, ingested=request.ingest)
            calls += [before + at + after] * len(request.events)
        return PredictionRows(
            answered.prediction_ids,
            answered.event_ids,
            read.columns.times,
            batch.values,
            [read.columns.texts[field] for field in self.pipeline.entity_fields],
            [positions[id(state)] for state in read.states],
            [freshness[id(state)] for state in read.states],
            calls,
        )

    def _new_answers(
        self, batch: RequestBatch, answered: AnsweredRows, rows: PredictionRows
    ) -> tuple[NewAnswers, list[int]]:
        """Serialized answers with what is to be ingested, and the row of each."""
        records: list[bytes] = []
        order: list[int] = []
        for block, missing in batch.scored_alike():
            at = block.rows.tolist()
            order += at
            records += self._encoder.encode(
                rows.take(block.rows),
                role=ROLE_ANSWER,
                scores=block.scores,
                decisions=[answered.decisions[row] for row in at],
                maker=block.maker,
                degradations=missing + block.maker.degradations,
                answered_us=answered.answered_us,
            )
        event_ids = [answered.event_ids[row] for row in order]
        if not any(request.ingest for request in batch.requests):
            return NewAnswers(event_ids, records), order
        ingested = [self._ingested(batch.events, row) if batch.request_of(row).ingest else (b"", b"") for row in order]
        return NewAnswers(event_ids, records, [event for event, _ in ingested], [key for _, key in ingested]), order

    def _ingested(self, events: EventColumns, row: int) -> tuple[bytes, bytes]:
        """An event as it goes to `events`, and its key."""
        schema = self.pipeline.event
        answered = CheckedEvent(
            events.ids[row],
            int(events.times[row]),
            [events.texts[field.name][row] for field in schema.texts],
            [float(events.numbers[field.name][row]) for field in schema.numbers],
            answered=True,
        )
        key = events.texts[self.pipeline.key_field][row]
        return pack_event(self.pipeline, answered).SerializeToString(), key.encode()

    def _repeat(self, batch: RequestBatch, answered: AnsweredRows, row: int, record: bytes) -> Prediction:
        request = batch.request_of(row)
        like = Prediction(
            prediction_id=answered.prediction_ids[row],
            channel=request.channel,
            received_time_us=request.received_us,
            answered_time_us=answered.answered_us,
        )
        return repeat_of(record, like)

    def _fitting(self, choice: Choice) -> None:
        if choice.version.features_fingerprint != self.pipeline.features_fingerprint:
            raise NotServingError(
                f"model version {choice.version.version} takes features {choice.version.features_fingerprint:016x}; "
                f"this gateway computes {self.pipeline.features_fingerprint:016x}"
            )


def _is_routed(answered: AnsweredRows, row: int) -> bool:
    """Whether a row was answered by the version of its route, which is what shadows are held to."""
    maker = answered.makers[row]
    return row not in answered.repeats and maker is not None and maker.choice.route != ROUTE_PINNED
