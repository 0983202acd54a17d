"""Single events of many callers as batches: which go together, when, and who gets what. Pure."""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from headrace.client.calls import shape_of
from headrace.client.deadlines import Deadline
from headrace.client.violations import Violation
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import PredictBatchResponse, PredictOptions, PredictResponse

F = TypeVar("F")

_OF_EVENT = re.compile(r"events\[(\d+)\](.*)")


@dataclass(slots=True)
class Waiting(Generic[F]):
    """An event whose caller waits.

    Attributes:
        event: as it travels.
        options: of its caller.
        deadline: until when it is waited for.
        future: of the caller.
    """

    event: Event
    options: PredictOptions
    deadline: Deadline
    future: F


@dataclass(frozen=True, slots=True)
class Batch(Generic[F]):
    """Events that go in one call.

    Attributes:
        key: what they have in common.
        rows: the events, at least one.
    """

    key: Hashable
    rows: Sequence[Waiting[F]]

    @property
    def events(self) -> list[Event]:
        """The events, in order."""
        return [one.event for one in self.rows]

    @property
    def options(self) -> PredictOptions:
        """Of all of them."""
        return self.rows[0].options

    @property
    def deadline(self) -> Deadline:
        """The latest: a caller in a hurry must not end the call of the others."""
        return max((one.deadline for one in self.rows), key=lambda one: one.at)


class Gathering(Generic[F]):
    """Events wait only while enough calls are under way; then the call that ends first is followed by what gathered.

    Args:
        max_rows: of a batch.
        max_in_flight: calls that may be under way at once.
        max_waiting: events that may wait.
        is_waited_for: whether the caller of a future still waits.
    """

    def __init__(self, max_rows: int, max_in_flight: int, max_waiting: int, is_waited_for: Callable[[F], bool]) -> None:
        self._max_rows = max_rows
        self._max_in_flight = max_in_flight
        self._max_waiting = max_waiting
        self._is_waited_for = is_waited_for
        self._groups: OrderedDict[Hashable, deque[Waiting[F]]] = OrderedDict()
        self._in_flight = 0
        self._waiting = 0

    def add(self, waiting: Waiting[F]) -> bool:
        """Take an event in; False where too many wait."""
        if self._waiting >= self._max_waiting:
            return False
        key = (shape_of(waiting.event), waiting.options.SerializeToString(deterministic=True))
        self._groups.setdefault(key, deque()).append(waiting)
        self._waiting += 1
        return True

    def put_back(self, batch: Batch[F]) -> None:
        """Rows that were refused for others' sake: they go next."""
        self._groups.setdefault(batch.key, deque()).extendleft(reversed(batch.rows))
        self._groups.move_to_end(batch.key, last=False)
        self._waiting += len(batch.rows)

    def next(self) -> Batch[F] | None:
        """The batch to send now; None while enough are under way, or nothing waits. Each is followed by `ended`."""
        while self._groups and self._in_flight < self._max_in_flight:
            key, group = next(iter(self._groups.items()))
            rows: list[Waiting[F]] = []
            while group and len(rows) < self._max_rows:
                one = group.popleft()
                self._waiting -= 1
                if self._is_waited_for(one.future) and one.deadline.remaining() > 0:
                    rows.append(one)
            if group:
                # The other groups first.
                self._groups.move_to_end(key)
            else:
                del self._groups[key]
            if rows:
                self._in_flight += 1
                return Batch(key, rows)
        return None

    def ended(self) -> None:
        """A batch has its answer, or none."""
        self._in_flight -= 1

    def clear(self) -> list[Waiting[F]]:
        """All that wait, which are taken out."""
        left = [one for group in self._groups.values() for one in group]
        self._groups.clear()
        self._waiting = 0
        return left


def blamed(violations: Sequence[Violation], rows: int) -> dict[int, list[Violation]]:
    """What is wrong with each event of a refused batch, as it would read had the event been sent alone.

    Args:
        violations: of the gateway.
        rows: of the batch.

    Returns:
        By index. Empty where something is wrong with all of them.
    """
    found: dict[int, list[Violation]] = {}
    for one in violations:
        match = _OF_EVENT.fullmatch(one.field)
        if match is None or int(match[1]) >= rows:
            return {}
        found.setdefault(int(match[1]), []).append(Violation(f"event{match[2]}", one.description))
    return found


def single_responses(answer: PredictBatchResponse, rows: int) -> list[PredictResponse]:
    """The answers of a batch one by one; what is known of the batch alone is said of each.

    Args:
        answer: of the gateway.
        rows: of the batch.

    Raises:
        ValueError: the answer is not one for so many rows.
    """
    width = len(answer.feature_names)
    columns: Sequence[Sequence[object]] = (
        answer.event_ids,
        answer.prediction_ids,
        answer.scores,
        answer.decisions,
        answer.routes,
        answer.roles,
        answer.model_version_index,
        answer.untrained,
    )
    versions = range(len(answer.model_versions))
    whole = all(len(column) == rows for column in columns) and len(answer.features) == rows * width
    if not whole or not all(index in versions for index in answer.model_version_index):
        raise ValueError(f"the gateway's answer is not one for {rows} events")
    return [
        PredictResponse(
            event_id=event_id,
            prediction_id=answer.prediction_ids[i],
            score=answer.scores[i],
            decision=answer.decisions[i],
            model_version=answer.model_versions[answer.model_version_index[i]],
            route=answer.routes[i],
            role=answer.roles[i],
            untrained=answer.untrained[i],
            degradations=answer.degradations,
            features_age_ms=answer.features_age_ms,
            model_time_us=answer.model_time_us,
            features=answer.features[i * width : (i + 1) * width],
            feature_names=answer.feature_names,
        )
        for i, event_id in enumerate(answer.event_ids)
    ]
