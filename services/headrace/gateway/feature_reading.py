"""Features of events that come by gRPC: read from the state and evaluated now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.gateway.answer_records import REDIS_AWAY, AnswerRecords
from headrace.gateway.answers import FeatureState
from headrace.gateway.circuit_breaker import CircuitBreaker
from headrace.gateway.feature_cache import FeatureCache, KeyLogs, Moment
from headrace.pipeline.evaluation import Evaluator, Kernel
from headrace.pipeline.events import EventColumns, FloatArray
from headrace.pipeline.state import FeaturePlan
from headrace.pipeline.stored_logs import EntityLogs
from headrace.platform.feature_state import EVENTS, OUTCOMES, FeatureStateReader, StateSnapshot
from headrace.platform.logging import get_logger
from headrace.v1.prediction_pb2 import DEGRADATION_FEATURES_DEFAULTED

_UNREAD = FeatureState((), (), 0, (DEGRADATION_FEATURES_DEFAULTED,))


@dataclass(frozen=True)
class FeatureRows:
    """Features of n events.

    Attributes:
        columns: the events.
        values: shape (n, width), float64.
        states: for each event what they were read from.
        answers: for each event the record of its first answer, None where it has none.
    """

    columns: EventColumns
    values: FloatArray
    states: Sequence[FeatureState]
    answers: Sequence[bytes | None]


class FeatureReading:
    """The feature stage.

    Args:
        plan: the compiled pipeline.
        reader: reads the state.
        records: first answers, read in the same round trip.
        timeout_s: how long Redis may take before features are their declared defaults.
        breaker: of this Redis.
        kernel: machine code for the evaluation, None to do without.
        cache: of logs that were read a moment ago; None to read anew each time.
    """

    def __init__(
        self,
        plan: FeaturePlan,
        reader: FeatureStateReader,
        records: AnswerRecords,
        *,
        timeout_s: float,
        breaker: CircuitBreaker,
        warn: Callable[[str], None] | None = None,
        kernel: Kernel | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        self._plan = plan
        self._cache = FeatureCache(0, 0, time.monotonic) if cache is None else cache
        self._evaluator = Evaluator(plan, kernel)
        self._reader = reader
        self._records = records
        self._timeout_s = timeout_s
        self._breaker = breaker
        self._warn = warn or (lambda reason: get_logger().warning("features are their defaults", reason=reason))

    async def read(self, columns: EventColumns) -> FeatureRows:
        """Features of n events, and whether they were answered before, in one round trip.

        Args:
            columns: the events.
        """
        ids = columns.ids
        known = self._records.local(ids)
        if not self._cache.enabled:
            snapshot = await self._snapshot(columns, ids)
            values, state = self._evaluated(columns, snapshot)
            return FeatureRows(columns, values, [state] * len(ids), _first_answers(snapshot, known))
        return await self._read_around_cache(columns, ids, known)

    def changing(self, columns: EventColumns) -> None:
        """Say that this process has passed events on to be merged: what is known of their keys is about to change."""
        if self._cache.enabled:
            for entity_ids in zip(*self._entity_ids(columns), strict=True):
                self._cache.changing(entity_ids)

    async def _read_around_cache(
        self, columns: EventColumns, ids: Sequence[str], known: Sequence[bytes | None]
    ) -> FeatureRows:
        """The same with logs that were read a moment ago where there are any; first answers are always read."""
        read_at = self._cache.now()
        entity_ids = self._entity_ids(columns)
        # Without windows there are no keys.
        cached = self._cache.lookup(list(zip(*entity_ids, strict=True)) or [()] * len(ids))
        missing = np.array([row for row, logs in enumerate(cached) if logs is None], np.intp)
        snapshot = await self._snapshot(columns.take(missing), ids)
        values = np.empty((len(ids), self._plan.width))
        values[missing], state = self._evaluated(columns.take(missing), snapshot)
        states = [state] * len(ids)
        found = {row: logs for row, logs in enumerate(cached) if logs is not None}
        if found:
            rows = np.fromiter(found, np.intp, len(found))
            values[rows] = self._evaluated_from(columns.take(rows), list(found.values()))
        for row, logs in found.items():
            moment = logs[0].moment
            assert moment is not None
            states[row] = FeatureState(moment.event_positions, moment.outcome_positions, moment.newest_us)
        if snapshot is not None:
            moment = Moment(state.event_positions, state.outcome_positions, state.newest_us, read_at)
            for number, read in enumerate(snapshot.entities):
                self._cache.store(number, read.ids, read.events, read.labels, moment)
        return FeatureRows(columns, values, states, _first_answers(snapshot, known))

    def _entity_ids(self, columns: EventColumns) -> list[Sequence[str]]:
        return [columns.texts[plan.field] for plan in self._plan.entities]

    def _evaluated(self, columns: EventColumns, snapshot: StateSnapshot | None) -> tuple[FloatArray, FeatureState]:
        if snapshot is None:
            return self._plan.defaults(columns), _UNREAD
        state = FeatureState(snapshot.positions(EVENTS), snapshot.positions(OUTCOMES), snapshot.newest_us)
        return self._evaluator.vectors(columns, snapshot.entities), state

    def _evaluated_from(self, columns: EventColumns, logs: Sequence[Sequence[KeyLogs]]) -> FloatArray:
        """Vectors of n events from logs that were kept, which need not all be of one moment, shape (n, width)."""
        own = np.arange(len(columns))
        entities = [
            EntityLogs(
                plan,
                list(columns.texts[plan.field]),
                own,
                [of[number].events for of in logs],
                [of[number].labels for of in logs] if plan.has_labels else [],
            )
            for number, plan in enumerate(self._plan.entities)
        ]
        return self._evaluator.vectors(columns, entities)

    async def _snapshot(self, columns: EventColumns, ids: Sequence[str]) -> StateSnapshot | None:
        """What Redis has, None where it does not answer."""
        if not self._breaker.allows():
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                snapshot = await self._reader.read(columns, [self._records.lookup_command(ids)])
        except REDIS_AWAY as error:
            self._breaker.failed()
            self._warn(f"{type(error).__name__}: {error}")
            return None
        self._breaker.succeeded()
        return snapshot


def _first_answers(snapshot: StateSnapshot | None, known: Sequence[bytes | None]) -> Sequence[bytes | None]:
    """What Redis knows of first answers, or else what this process knows."""
    if snapshot is None:
        return known
    return [shared or own for shared, own in zip(snapshot.replies[0], known, strict=True)]
