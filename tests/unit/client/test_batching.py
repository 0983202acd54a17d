"""Batches made of single events: each caller gets its own answer, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.client import AsyncPredictionClient, CallError, Deadline, EventInput, PredictionClient
from headrace.client.calls import shape_of
from headrace.client.gathering import Batch, Gathering, Waiting, blamed, single_responses
from headrace.client.violations import Violation
from headrace.gateway.errors import InvalidRequestError
from headrace.gateway.errors import Violation as Fault
from headrace.gateway.grpc_errors import status_of
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_service_pb2 import PredictBatchRequest, PredictBatchResponse, PredictOptions
from headrace.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)

Context = grpc.aio.ServicerContext[Any, Any]


class Doubling(PredictionServiceServicer):
    """Answers with twice the amount; refuses amounts below zero, as the gateway refuses a batch."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.under_way = 0
        self.most_under_way = 0
        self.came = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def PredictBatch(self, request: PredictBatchRequest, context: Context) -> PredictBatchResponse:  # noqa: N802
        self.sizes.append(len(request.event_ids))
        self.came.set()
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.go.wait()
        finally:
            self.under_way -= 1
        amounts = next(one.numbers for one in request.columns if one.name == "amount")
        wrong = [Fault(f"events[{i}].fields.amount", "too small") for i, one in enumerate(amounts) if one < 0]
        if wrong:
            status = status_of(InvalidRequestError(wrong))
            await context.abort(status.code, status.message, status.trailing_metadata())
        count = len(request.event_ids)
        return PredictBatchResponse(
            event_ids=request.event_ids,
            prediction_ids=[f"p-{one}" for one in request.event_ids],
            scores=[2 * one for one in amounts],
            decisions=["accept"] * count,
            routes=[1] * count,  # type: ignore[list-item]
            roles=[1] * count,  # type: ignore[list-item]
            model_versions=[request.options.model_version or "1"],
            model_version_index=[0] * count,
            untrained=[False] * count,
        )


@asynccontextmanager
async def doubling() -> AsyncIterator[tuple[Doubling, str]]:
    server = grpc.aio.server()
    servicer = Doubling()  # type: ignore[abstract]
    add_PredictionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def event(number: int) -> EventInput:
    return EventInput(f"e{number}", 1, {"amount": float(number)})


async def test_many_tasks_share_few_calls_and_each_gets_its_own() -> None:
    async with (
        doubling() as (server, target),
        AsyncPredictionClient(target) as client,
        client.batching(max_rows=100) as batching,
    ):
        answers = await asyncio.gather(*(batching.predict(event(i)) for i in range(500)))
    assert [one.score for one in answers] == [2.0 * i for i in range(500)]
    assert [one.event_id for one in answers] == [f"e{i}" for i in range(500)]
    assert max(server.sizes) <= 100
    assert len(server.sizes) <= 6
    assert server.most_under_way <= 2


async def test_many_threads_share_few_calls_and_each_gets_its_own() -> None:
    def use(target: str) -> list[float]:
        with PredictionClient(target) as client, client.batching() as batching, ThreadPoolExecutor(40) as threads:
            return list(threads.map(lambda i: batching.predict(event(i)).score, range(400)))

    async with doubling() as (server, target):
        scores = await asyncio.to_thread(use, target)
    assert scores == [2.0 * i for i in range(400)]
    assert len(server.sizes) < 400
    assert server.most_under_way <= 2


async def test_an_event_that_is_wrong_does_not_disturb_the_others() -> None:
    async with (
        doubling() as (server, target),
        AsyncPredictionClient(target) as client,
        client.batching() as batching,
    ):
        numbers = [1, -2, 3, -4, 5]
        answers = await asyncio.gather(*(batching.predict(event(i)) for i in numbers), return_exceptions=True)
        text = EventInput("t", 1, {"amount": "many"})
        with pytest.raises(CallError, match="not one for 1 events"):
            await batching.predict(text)
    for number, answer in zip(numbers, answers, strict=True):
        if number < 0:
            assert isinstance(answer, CallError)
            assert answer.violations == (Violation("event.fields.amount", "too small"),)
        else:
            assert not isinstance(answer, BaseException)
            assert answer.score == 2 * number
    assert server.sizes[:2] == [5, 3]


async def test_a_caller_that_leaves_or_is_late_does_not_disturb_the_others() -> None:
    async with (
        doubling() as (server, target),
        AsyncPredictionClient(target) as client,
        client.batching(max_in_flight=1) as batching,
    ):
        server.go.clear()
        patient = asyncio.create_task(batching.predict(event(1)))
        leaving = asyncio.create_task(batching.predict(event(2)))
        hurried = asyncio.create_task(batching.predict(event(3), timeout_s=0.05))
        with pytest.raises(CallError, match="DEADLINE_EXCEEDED"):
            await hurried
        leaving.cancel()
        server.go.set()
        assert (await patient).score == 2.0
        with pytest.raises(asyncio.CancelledError):
            await leaving


async def test_what_cannot_wait_is_refused_and_what_waits_at_the_end_fails() -> None:
    async with doubling() as (server, target), AsyncPredictionClient(target) as client:
        server.go.clear()
        batching = client.batching(max_rows=1, max_in_flight=1, max_waiting=2)
        first = asyncio.create_task(batching.predict(event(1)))
        await server.came.wait()
        waiting = [asyncio.create_task(batching.predict(event(i))) for i in (2, 3)]
        await asyncio.sleep(0)
        with pytest.raises(CallError, match="RESOURCE_EXHAUSTED"):
            await batching.predict(event(4))
        server.go.set()
        await batching.close()
        assert (await first).score == 2.0
        for one in waiting:
            with pytest.raises(CallError, match="closed"):
                await one


def row(number: int, version: str = "", field: str = "amount") -> Waiting[int]:
    made = Event(event_id=f"e{number}", event_time_us=1)
    made.fields[field] = number
    return Waiting(made, PredictOptions(model_version=version), Deadline.after(60), number)


@given(
    st.lists(st.tuples(st.sampled_from(["1", "2"]), st.sampled_from(["a", "b"]), st.booleans()), max_size=60),
    st.integers(1, 7),
    st.integers(1, 3),
)
def test_every_event_goes_once_with_its_like(
    events: list[tuple[str, str, bool]], max_rows: int, max_in_flight: int
) -> None:
    gone = {i for i, (_, _, leaves) in enumerate(events) if leaves}
    gathering: Gathering[int] = Gathering(max_rows, max_in_flight, 1000, lambda number: number not in gone)
    for i, (version, field, _) in enumerate(events):
        assert gathering.add(row(i, version, field))
    sent: list[int] = []
    under_way: list[Batch[int]] = []
    while True:
        batch = gathering.next()
        if batch is None and not under_way:
            break
        if batch is None:
            under_way.pop(0)
            gathering.ended()
            continue
        under_way.append(batch)
        assert len(under_way) <= max_in_flight
        assert 1 <= len(batch.rows) <= max_rows
        assert len({(events[one.future][0], events[one.future][1]) for one in batch.rows}) == 1
        sent += [one.future for one in batch.rows]
    assert sorted(sent) == sorted(set(range(len(events))) - gone)
    for kind in {one[:2] for one in events}:
        of_kind = [i for i in sent if events[i][:2] == kind]
        assert of_kind == sorted(of_kind)


def test_an_answer_for_other_events_is_refused() -> None:
    answer = PredictBatchResponse(
        event_ids=["a"],
        prediction_ids=["p"],
        scores=[0.5],
        decisions=["accept"],
        routes=[1],  # type: ignore[list-item]
        roles=[1],  # type: ignore[list-item]
        model_versions=["7"],
        model_version_index=[0],
        untrained=[False],
        features=[1.0, 2.0],
        feature_names=["x", "y"],
    )
    (one,) = single_responses(answer, 1)
    assert (one.event_id, one.model_version, list(one.features)) == ("a", "7", [1.0, 2.0])
    for wrong in (
        PredictBatchResponse(),
        PredictBatchResponse(event_ids=["a"]),
        PredictBatchResponse(features=[1.0]),
        PredictBatchResponse(model_version_index=[1]),
    ):
        other = PredictBatchResponse()
        other.CopyFrom(answer)
        other.MergeFrom(wrong)
        if wrong.model_version_index:
            other.model_version_index[:] = [1]
        with pytest.raises(ValueError, match="not one for"):
            single_responses(other, 1 if wrong.ByteSize() else 2)


def test_blame_is_put_where_the_gateway_puts_it() -> None:
    wrong = [Violation("events[1].fields.a", "x"), Violation("events[1].event_id", "y"), Violation("events[3]", "z")]
    assert blamed(wrong, 4) == {
        1: [Violation("event.fields.a", "x"), Violation("event.event_id", "y")],
        3: [Violation("event", "z")],
    }
    assert blamed([*wrong, Violation("columns.a", "of all")], 4) == {}
    assert shape_of(row(1).event) != shape_of(row(1, field="other").event)
