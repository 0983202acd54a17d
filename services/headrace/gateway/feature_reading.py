"""Features of events that come by gRPC: read from the state and evaluated now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.gateway.answer_records import REDIS_AWAY, AnswerRecords
from headrace.gateway.circuit_breaker import CircuitBreaker
from headrace.pipeline.events import FloatArray
from headrace.pipeline.state import FeaturePlan
from headrace.pipeline.windows import feature_vectors
from headrace.platform.event_codec import CheckedEvent, event_columns
from headrace.platform.feature_state import EVENTS, OUTCOMES, FeatureStateReader
from headrace.platform.logging import get_logger
from headrace.v1.prediction_pb2 import DEGRADATION_FEATURES_DEFAULTED, Degradation


@dataclass(frozen=True)
class FeatureRows:
    """Features of n events.

    Attributes:
        values: shape (n, width), float64.
        event_positions: state positions that they hold at, by partition of `events`; empty when defaulted.
        outcome_positions: the same for `outcomes`.
        newest_us: production time of the newest record in the state, in microseconds; 0 when it is empty or unread.
        answers: for each event the record of its first answer, None where it has none.
        degradations: what was missing.
    """

    values: FloatArray
    event_positions: Sequence[int]
    outcome_positions: Sequence[int]
    newest_us: int
    answers: Sequence[bytes | None]
    degradations: tuple[Degradation.ValueType, ...]


class FeatureReading:
    """The feature stage: `read` is what the batcher of the features calls.

    Args:
        plan: the compiled pipeline.
        reader: reads the state.
        records: first answers, read in the same round trip.
        timeout_s: how long Redis may take before features are their declared defaults.
        breaker: of this Redis.
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
    ) -> None:
        self._plan = plan
        self._reader = reader
        self._records = records
        self._timeout_s = timeout_s
        self._breaker = breaker
        self._warn = warn or (lambda reason: get_logger().warning("features are their defaults", reason=reason))

    async def read(self, _: None, blocks: list[Sequence[CheckedEvent]]) -> list[FeatureRows]:
        """Features of blocks of events, and whether they were answered before, in one round trip.

        Args:
            blocks: events of each caller.
        """
        events = [event for block in blocks for event in block]
        ids = [event.event_id for event in events]
        columns = event_columns(self._plan.pipeline, events)
        snapshot = None
        if self._breaker.allows():
            try:
                async with asyncio.timeout(self._timeout_s):
                    snapshot = await self._reader.read(columns, [self._records.lookup_command(ids)])
                self._breaker.succeeded()
            except REDIS_AWAY as error:
                self._breaker.failed()
                self._warn(f"{type(error).__name__}: {error}")
        known = self._records.local(ids)
        event_positions: list[int] = []
        outcome_positions: list[int] = []
        newest_us = 0
        missing: tuple[Degradation.ValueType, ...] = ()
        if snapshot is None:
            values = self._plan.defaults(columns)
            missing = (DEGRADATION_FEATURES_DEFAULTED,)
        else:
            values = feature_vectors(self._plan, columns, [logs.state() for logs in snapshot.entities])
            event_positions, outcome_positions = snapshot.positions(EVENTS), snapshot.positions(OUTCOMES)
            newest_us = snapshot.newest_us
            known = [shared or own for shared, own in zip(snapshot.replies[0], known, strict=True)]
        rows, first = [], 0
        for part in np.split(values, np.cumsum([len(block) for block in blocks])[:-1]):
            answers = known[first : first + len(part)]
            first += len(part)
            rows.append(FeatureRows(part, event_positions, outcome_positions, newest_us, answers, missing))
        return rows
