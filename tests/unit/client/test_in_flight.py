"""What a stream knows of the events that it has sent."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from headrace.client import Deadline
from headrace.client.in_flight import DEADLINE_EXCEEDED, Again, InFlight
from headrace.client.reconnecting import Patience
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import PredictRequest, PredictResponse, StreamError, StreamPredictResponse


def request(event_id: str) -> PredictRequest:
    return PredictRequest(event=Event(event_id=event_id))


def answer(event_id: str) -> StreamPredictResponse:
    return StreamPredictResponse(event_id=event_id, prediction=PredictResponse(event_id=event_id))


def refusal(event_id: str, code: int = 8, after_ms: int = 100) -> StreamPredictResponse:
    return StreamPredictResponse(
        event_id=event_id, error=StreamError(code=code, message="full", retry_after_ms=after_ms)
    )


def test_a_refused_event_is_sent_again_within_its_deadline() -> None:
    waiting = InFlight()
    waiting.add(request("a"), Deadline(10.0))
    assert waiting.answered(refusal("a"), 9.0) == Again(request("a"), 0.1)
    assert len(waiting) == 1
    # Too late for another time: the refusal is the answer.
    assert waiting.answered(refusal("a"), 9.95) == refusal("a")
    assert len(waiting) == 0
    waiting.add(request("b"), Deadline(10.0))
    assert waiting.answered(refusal("b", code=DEADLINE_EXCEEDED, after_ms=0), 5.0) == Again(request("b"), 0.1)
    assert waiting.answered(refusal("b", code=3), 0.0) == refusal("b", code=3)


def test_an_event_that_waits_for_another_try_expires_with_the_reason() -> None:
    waiting = InFlight()
    waiting.add(request("a"), Deadline(10.0))
    waiting.answered(refusal("a"), 9.0)
    late = waiting.expired(10.0)
    assert [(one.event_id, one.error.code) for one in late] == [("a", DEADLINE_EXCEEDED)]
    assert late[0].error.message == "no answer before the deadline: full"
    assert waiting.answered(answer("a"), 10.1) is None


steps = st.lists(
    st.tuples(st.sampled_from(["add", "answer", "refuse", "expire"]), st.sampled_from("abc"), st.integers(1, 9)),
    max_size=80,
)


@given(steps)
def test_every_event_has_exactly_one_end(taken: list[tuple[str, str, int]]) -> None:
    waiting = InFlight()
    now = 0.0
    added: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for step, event_id, number in taken:
        now += 0.1
        if step == "add":
            waiting.add(request(event_id), Deadline(now + number))
            added[event_id] += 1
        elif step == "expire":
            now += number / 3
            ended.update(one.event_id for one in waiting.expired(now))
        else:
            outcome = waiting.answered(answer(event_id) if step == "answer" else refusal(event_id), now)
            assert (outcome is None) == (added[event_id] == ended[event_id])
            ended[event_id] += isinstance(outcome, StreamPredictResponse)
        assert len(waiting) == added.total() - ended.total()
        assert Counter(one.event.event_id for one in waiting.unanswered()) == added - ended
        assert (waiting.next_deadline() is None) == (len(waiting) == 0)
    ended.update(one.event_id for one in waiting.expired(now + 100))
    assert ended == added


def test_patience_ends_when_nothing_was_answered_for_long() -> None:
    now = 0.0
    patience = Patience(10.0, lambda: now)
    pauses = []
    while patience.left():
        pauses.append(patience.pause_s(1.0))
        now += pauses[-1]
    assert pauses[:4] == [0.05, 0.1, 0.2, 0.4]
    assert max(pauses) == 1.0
    assert now >= 10
    patience.answered()
    assert patience.left()
    assert patience.pause_s(0.0) == 0.025
