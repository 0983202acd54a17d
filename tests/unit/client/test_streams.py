"""Streams against a gRPC server of the test's own that breaks, refuses and delays as a gateway may."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from headrace.client import AsyncPredictionClient, CallError, EventInput, PredictionClient
from headrace.v1.prediction_service_pb2 import PredictRequest, PredictResponse, StreamError, StreamPredictResponse
from headrace.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)

Context = grpc.aio.ServicerContext[Any, Any]
Answer = StreamPredictResponse


class Scripted(PredictionServiceServicer):
    """Does with each request of a stream what the test says."""

    def __init__(self, act: Callable[[PredictRequest, int], str]) -> None:
        self.act = act
        self.connections = 0
        self.seen: Counter[str] = Counter()
        self.most_unanswered = 0

    async def StreamPredict(  # noqa: N802 (the contract)
        self, request_iterator: AsyncIterator[PredictRequest], context: Context
    ) -> AsyncIterator[Answer]:
        self.connections += 1
        async for request in request_iterator:
            event_id = request.event.event_id
            self.seen[event_id] += 1
            match self.act(request, self.connections):
                case "answer":
                    yield Answer(event_id=event_id, prediction=PredictResponse(event_id=event_id, score=0.5))
                case "break":
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the gateway is about to end")
                case "refuse":
                    yield Answer(event_id=event_id, error=StreamError(code=8, message="full", retry_after_ms=20))
                case "deny":
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for you")
                case "end":
                    return
                case _:
                    pass


@asynccontextmanager
async def serving(act: Callable[[PredictRequest, int], str]) -> AsyncIterator[tuple[Scripted, str]]:
    server = grpc.aio.server()
    scripted = Scripted(act)  # type: ignore[abstract]
    add_PredictionServiceServicer_to_server(scripted, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield scripted, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def event(number: int) -> EventInput:
    return EventInput(f"e{number}", 1, {"amount": 1})


async def by_threads(target: str, count: int, **settings: Any) -> list[Answer]:
    def use() -> list[Answer]:
        with PredictionClient(target, timeout_s=5) as client:
            return list(client.stream_predict(map(event, range(count)), **settings))

    return await asyncio.to_thread(use)


async def by_tasks(target: str, count: int, **settings: Any) -> list[Answer]:
    async with AsyncPredictionClient(target, timeout_s=5) as client:
        return [one async for one in client.stream_predict(map(event, range(count)), **settings)]


Stream = Callable[..., Any]
both = pytest.mark.parametrize("stream", [by_threads, by_tasks])


@both
@pytest.mark.parametrize("how", ["break", "end"])
async def test_what_is_unanswered_is_sent_again_over_a_new_connection(stream: Stream, how: str) -> None:
    def act(request: PredictRequest, connection: int) -> str:
        number = int(request.event.event_id[1:])
        if connection == 1 and number == 30:
            return how
        return "silence" if connection == 1 and number % 3 == 0 else "answer"

    async with serving(act) as (server, target):
        answers = await stream(target, 100)
    assert Counter(one.event_id for one in answers) == Counter(f"e{i}" for i in range(100))
    assert all(one.HasField("prediction") for one in answers)
    assert server.connections == 2
    assert server.seen["e0"] == 2
    assert server.seen["e99"] == 1


@both
async def test_a_refused_event_is_sent_again_when_the_gateway_says(stream: Stream) -> None:
    refused: Counter[str] = Counter()

    def act(request: PredictRequest, connection: int) -> str:
        refused[request.event.event_id] += 1
        return "refuse" if refused[request.event.event_id] < 3 else "answer"

    began = time.monotonic()
    async with serving(act) as (server, target):
        answers = await stream(target, 5)
    assert {one.event_id for one in answers if one.prediction.score == 0.5} == {f"e{i}" for i in range(5)}
    assert set(server.seen.values()) == {3}
    assert time.monotonic() - began >= 0.04


@both
async def test_an_event_without_an_answer_has_an_error_at_its_deadline(stream: Stream) -> None:
    async with serving(lambda request, _: "silence" if request.event.event_id == "e1" else "answer") as (_, target):
        answers = {one.event_id: one for one in await stream(target, 3, timeout_s=0.2)}
    assert answers["e1"].error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert answers["e0"].HasField("prediction")
    assert answers["e2"].HasField("prediction")


@both
async def test_a_refusal_of_the_caller_ends_the_stream(stream: Stream) -> None:
    async with serving(lambda *_: "deny") as (server, target):
        with pytest.raises(CallError, match="PERMISSION_DENIED: not for you"):
            await stream(target, 3)
    # A request that meets the end of the stream hides the gateway's status, and it is asked again: the machine says how
    # often, and it is far from the twenty and more times of thirty seconds of patience.
    assert server.connections < 10


@both
async def test_a_gateway_that_does_not_come_is_given_up(stream: Stream) -> None:
    async with serving(lambda *_: "break") as (server, target):
        with pytest.raises(CallError, match=r"about to end|ended the stream"):
            await stream(target, 3, reconnect_for_s=0.3)
    assert server.connections > 1


async def test_a_reader_that_does_not_read_is_not_fed_for() -> None:
    read = 0

    def events() -> Iterator[EventInput]:
        nonlocal read
        for number in range(1000):
            read = number + 1
            yield event(number)

    async with serving(lambda *_: "answer") as (_, target), AsyncPredictionClient(target) as client:
        count = 0
        async for _ in client.stream_predict(events(), max_in_flight=10):
            count += 1
            assert read <= count + 10
        assert count == 1000


async def test_a_reader_that_leaves_stops_the_stream() -> None:
    read = 0

    def events() -> Iterator[EventInput]:
        nonlocal read
        while True:
            read += 1
            yield event(read)

    def use(target: str) -> None:
        with PredictionClient(target) as client:
            for number, _ in enumerate(client.stream_predict(events(), max_in_flight=4), 1):
                if number == 10:
                    break
            for thread in threading.enumerate():
                if thread.name == "headrace-stream":
                    thread.join(5)
                    assert not thread.is_alive()

    async with serving(lambda *_: "answer") as (_, target):
        await asyncio.to_thread(use, target)
    assert read <= 10 + 4 + 1


@both
async def test_an_empty_stream_opens_nothing(stream: Stream) -> None:
    async with serving(lambda *_: "answer") as (server, target):
        assert await stream(target, 0) == []
    assert server.connections == 0


async def test_an_error_of_the_producer_reaches_the_reader() -> None:
    async def events() -> AsyncIterator[EventInput]:
        yield event(1)
        raise RuntimeError("the source broke")

    async with serving(lambda *_: "answer") as (_, target), AsyncPredictionClient(target) as client:
        with pytest.raises(RuntimeError, match="the source broke"):
            async for _ in client.stream_predict(events()):
                pass


async def test_a_reader_that_is_cancelled_leaves_nothing_behind() -> None:
    def act(request: PredictRequest, _: int) -> str:
        return "answer" if request.event.event_id == "e0" else "silence"

    async with serving(act) as (_, target), AsyncPredictionClient(target) as client:
        before = asyncio.all_tasks()
        first = asyncio.Event()

        async def read() -> None:
            async with aclosing(client.stream_predict(map(event, range(100)))) as answers:
                async for _ in answers:
                    first.set()

        reading = asyncio.create_task(read())
        await first.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        # What gRPC keeps for the call it ends by itself.
        assert not [one for one in asyncio.all_tasks() - before if "aio_stream" in repr(one)]
        assert [one.event_id async for one in client.stream_predict([event(0)])] == ["e0"]
