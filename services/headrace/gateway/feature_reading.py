"""Features of events that come by gRPC: read from the state and evaluated now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.gateway.answer_records import REDIS_AWAY, AnswerRecords
from headrace.gateway.circuit_breaker import CircuitBreaker
from headrace.pipeline.evaluation import Evaluator, Kernel
from headrace.pipeline.events import EventColumns, FloatArray
from headrace.pipeline.state import FeaturePlan
from headrace.platform.event_codec import CheckedEvent, event_columns
from headrace.platform.feature_state import EVENTS, OUTCOMES, FeatureStateReader, StateSnapshot
from headrace.platform.logging import get_logger
from headrace.v1.prediction_pb2 import DEGRADATION_FEATURES_DEFAULTED, Degradation

_DEFAULTED = (DEGRADATION_FEATURES_DEFAULTED,)


@dataclass(frozen=True)
class FeatureRows:
    """Features of n events.

    Attributes:
        columns: the events.
        values: shape (n, width), float64.
        event_positions: state positions that they hold at, by partition of `events`; empty when defaulted.
        outcome_positions: the same for `outcomes`.
        newest_us: production time of the newest record in the state, in microseconds; 0 when it is empty or unread.
        answers: for each event the record of its first answer, None where it has none.
        degradations: what was missing.
    """

    columns: EventColumns
    values: FloatArray
    event_positions: Sequence[int]
    outcome_positions: Sequence[int]
    newest_us: int
    answers: Sequence[bytes | None]
    degradations: tuple[Degradation.ValueType, ...]


class FeatureReading:
    """The feature stage.

    Args:
        plan: the compiled pipeline.
        reader: reads the state.
        records: first answers, read in the same round trip.
        timeout_s: how long Redis may take before features are their declared defaults.
        breaker: of this Redis.
        kernel: machine code for the evaluation, None to do without.
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
    ) -> None:
        self._plan = plan
        self._evaluator = Evaluator(plan, kernel)
        self._reader = reader
        self._records = records
        self._timeout_s = timeout_s
        self._breaker = breaker
        self._warn = warn or (lambda reason: get_logger().warning("features are their defaults", reason=reason))

    async def read(self, events: Sequence[CheckedEvent]) -> FeatureRows:
        """Features of n events, and whether they were answered before, in one round trip.

        Args:
            events: the events.
        """
        ids = [event.event_id for event in events]
        columns = event_columns(self._plan.pipeline, events)
        known = self._records.local(ids)
        snapshot = await self._snapshot(columns, ids)
        if snapshot is None:
            return FeatureRows(columns, self._plan.defaults(columns), (), (), 0, known, _DEFAULTED)
        values = self._evaluator.vectors(columns, snapshot.entities)
        return FeatureRows(
            columns,
            values,
            snapshot.positions(EVENTS),
            snapshot.positions(OUTCOMES),
            snapshot.newest_us,
            [shared or own for shared, own in zip(snapshot.replies[0], known, strict=True)],
            (),
        )

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
