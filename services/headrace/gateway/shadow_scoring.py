"""Versions that are scored beside the answers: logged, never answered, and the first to be shed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from headrace.gateway.answer_log import AnswerLog
from headrace.gateway.answers import Maker
from headrace.gateway.batch_queues import Priority
from headrace.gateway.errors import GatewayError
from headrace.gateway.metrics import SHADOW_ROWS, SHED_SHADOW_ROWS
from headrace.gateway.model_scores import ModelScores
from headrace.gateway.prediction_encoding import PredictionEncoder, PredictionRows
from headrace.gateway.requests import now_us
from headrace.gateway.routing import Choice, Routing
from headrace.pipeline.definition import Decision
from headrace.v1.prediction_pb2 import ROLE_SHADOW, Degradation


class ShadowScoring:
    """Scores what was answered with the shadow versions of the route table.

    Args:
        routing: names the shadows.
        score: scores rows.
        log: takes the scores.
        encoder: of the pipeline.
        decision: of the pipeline.
        most_rows: rows that may be under way; more are shed.
        clock: wall clock in microseconds.
    """

    def __init__(
        self,
        routing: Routing,
        score: ModelScores,
        log: AnswerLog,
        encoder: PredictionEncoder,
        decision: Decision,
        *,
        most_rows: int,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self._routing = routing
        self._score = score
        self._log = log
        self._encoder = encoder
        self._decision = decision
        self._clock = clock
        self._most_rows = most_rows
        self._rows = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, rows: PredictionRows, degradations: tuple[Degradation.ValueType, ...]) -> None:
        """Score events that were answered, soon or not at all.

        Args:
            rows: the events, with the ids of their answers.
            degradations: what was missing when their features were read.
        """
        for choice in self._routing.shadows() if self._routing.has_table else ():
            if not len(rows):
                return
            if self._rows + len(rows) > self._most_rows:
                SHED_SHADOW_ROWS.inc(len(rows))
                continue
            self._rows += len(rows)
            task = asyncio.create_task(self._shadow(choice, rows, degradations), name="shadow")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait for what is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _shadow(
        self, choice: Choice, rows: PredictionRows, degradations: tuple[Degradation.ValueType, ...]
    ) -> None:
        try:
            records = await self.records(choice, rows, degradations)
            self._log.log_beside(records, rows.event_ids)
        except GatewayError:
            # A score that nobody was promised.
            SHED_SHADOW_ROWS.inc(len(rows))
        finally:
            self._rows -= len(rows)

    async def records(
        self, choice: Choice, rows: PredictionRows, degradations: tuple[Degradation.ValueType, ...]
    ) -> list[bytes]:
        """The predictions of a shadow version, serialized.

        Args:
            choice: the version.
            rows: n events, with the ids of their answers.
            degradations: what was missing when their features were read.

        Raises:
            GatewayError: there are none.
        """
        records: list[bytes] = []
        first = 0
        for part in await self._score(choice, rows.values, priority=Priority.STREAM):
            of_part = rows.take(np.arange(first, first + len(part.scores)))
            first += len(part.scores)
            maker, untrained = Maker(part.choice, part.in_process), part.choice.version.untrained
            scores = part.scores.astype(np.float64)
            records += self._encoder.encode(
                _named(of_part, part.choice.version.version),
                role=ROLE_SHADOW,
                scores=scores,
                decisions=[self._decision.decide(score, untrained=untrained) for score in scores.tolist()],
                maker=maker,
                degradations=degradations + maker.degradations,
                answered_us=self._clock(),
            )
        SHADOW_ROWS.inc(len(rows))
        return records


def _named(rows: PredictionRows, version: str) -> PredictionRows:
    ids: Sequence[str] = [f"{answer}-s-{version}" for answer in rows.prediction_ids]
    return PredictionRows(
        ids, rows.event_ids, rows.times, rows.values, rows.entities, rows.positions, rows.freshness, rows.calls
    )
