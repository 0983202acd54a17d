"""One stream of events and its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from headrace.gateway.errors import GatewayError, PermissionDeniedError, UnauthenticatedError
from headrace.gateway.grpc_streams import AnswerStream
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import PredictRequest, PredictResponse


class Calls:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.begun: list[asyncio.Future[Any]] = []

    def early_s(self) -> float:
        return 0.0

    def begin(self, _: PredictRequest, __: object) -> asyncio.Future[Any]:
        self.begun.append(asyncio.get_running_loop().create_future())
        return self.begun[-1]

    def predicted(self, _: PredictRequest, answer: float) -> PredictResponse:
        return PredictResponse(score=answer)


class Unsent:
    allowed = True

    def made(self, _: int) -> None: ...

    def sent(self, _: int) -> None: ...


async def events(count: int) -> AsyncIterator[PredictRequest]:
    for number in range(count):
        yield PredictRequest(event=Event(event_id=f"e{number}"))


async def answers_of(refusal: GatewayError, after: int) -> tuple[AnswerStream, Calls, list[Any], list[GatewayError]]:
    """What a stream of five events answers whose caller is refused from one of them on."""
    calls, noted = Calls(), list[GatewayError]()
    known = iter([True] * after)

    def context() -> Any:
        if not next(known, False):
            raise refusal
        return None

    made: Any = (calls, context, 100, noted.append, Unsent())
    stream = AnswerStream(*made)
    reading = asyncio.create_task(stream.read(events(5)))
    await reading
    for number, future in enumerate(calls.begun):
        future.set_result(number / 10)
    return stream, calls, [one async for one in stream.answers()], noted


async def test_a_caller_whose_token_has_expired_is_not_read_from_any_more() -> None:
    error = UnauthenticatedError("expired", "it has expired")
    stream, calls, answers, noted = await answers_of(error, after=3)
    # What was read before is answered; what was not can be sent again, so it has no error.
    assert [one.event_id for one in answers] == ["e0", "e1", "e2"]
    assert all(one.HasField("prediction") for one in answers)
    assert len(calls.begun) == 3
    assert stream.ended_by is error
    assert noted == [error]


async def test_a_caller_who_lacks_a_permission_hears_it_for_each_event() -> None:
    stream, _, answers, noted = await answers_of(PermissionDeniedError("jwt:a", "predict"), after=3)
    assert sorted(one.event_id for one in answers if one.HasField("error")) == ["e3", "e4"]
    assert stream.ended_by is None
    assert len(noted) == 2
