"""Events of a stream between their request and their answer. Pure."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field

from headrace.client.deadlines import Deadline
from headrace.v1.prediction_service_pb2 import PredictRequest, StreamError, StreamPredictResponse

# As gRPC numbers its statuses.
INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE = 3, 4, 8, 14
# The gateway gives an event of a stream a time of its own, which may be shorter than its deadline here.
_TRANSIENT = frozenset({DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE})
REPEAT_S = 0.1
"""When to send an event again that was refused without saying when, in seconds."""


@dataclass(slots=True, eq=False)
class _Entry:
    request: PredictRequest
    deadline: Deadline
    refusal: StreamError | None = None
    """Why it is not answered yet, where it was refused and will be sent again."""
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """A refused event that is to be sent again.

    Attributes:
        request: as it was.
        delay_s: after so many seconds.
    """

    request: PredictRequest
    delay_s: float


@dataclass
class InFlight:
    """Which events wait for an answer, in the order in which they were sent; an id may be there more than once."""

    _entries: dict[str, deque[_Entry]] = field(default_factory=dict)
    _deadlines: list[tuple[float, int, _Entry]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _count: int = 0

    def __len__(self) -> int:
        return self._count

    def add(self, request: PredictRequest, deadline: Deadline) -> None:
        """An event is about to be sent."""
        entry = _Entry(request, deadline)
        self._entries.setdefault(request.event.event_id, deque()).append(entry)
        heapq.heappush(self._deadlines, (deadline.at, next(self._numbers), entry))
        self._count += 1

    def answered(self, answer: StreamPredictResponse, now: float) -> StreamPredictResponse | Again | None:
        """What to do with an answer: hand it on, send the event again, or nothing where nobody waits for it.

        Args:
            answer: of the gateway.
            now: time of `time.monotonic`.
        """
        entries = self._entries.get(answer.event_id)
        if not entries:
            return None
        entry = entries[0]
        if answer.HasField("error") and answer.error.code in _TRANSIENT:
            delay_s = answer.error.retry_after_ms / 1000 or REPEAT_S
            if now + delay_s < entry.deadline.at:
                entry.refusal = answer.error
                # The next answer with this id is of another one, where there is another one.
                entries.rotate(-1)
                return Again(entry.request, delay_s)
        self._take(entry)
        return answer

    def expired(self, now: float, why: str = "") -> list[StreamPredictResponse]:
        """Errors for the events whose deadline has passed; a late answer finds nobody.

        Args:
            now: time of `time.monotonic`.
            why: what kept the stream from being answered, where that is known.
        """
        late = []
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].answered):
            entry = heapq.heappop(self._deadlines)[2]
            if entry.answered:
                continue
            self._take(entry)
            reason = entry.refusal.message if entry.refusal is not None else why
            message = "no answer before the deadline" + (f": {reason}" if reason else "")
            late.append(failed(entry.request.event.event_id, DEADLINE_EXCEEDED, message))
        return late

    def next_deadline(self) -> float | None:
        """When the next event expires; None where nothing waits."""
        while self._deadlines and self._deadlines[0][2].answered:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def unanswered(self) -> list[PredictRequest]:
        """What a new connection has to send again, oldest deadline first."""
        return [entry.request for _, _, entry in sorted(self._deadlines, key=lambda one: one[:2]) if not entry.answered]

    def _take(self, entry: _Entry) -> None:
        event_id = entry.request.event.event_id
        entries = self._entries[event_id]
        entries.remove(entry)
        if not entries:
            del self._entries[event_id]
        entry.answered = True
        self._count -= 1


def failed(event_id: str, code: int, message: str) -> StreamPredictResponse:
    """An error of the client's own, in the place of an answer."""
    return StreamPredictResponse(event_id=event_id, error=StreamError(code=code, message=message))
