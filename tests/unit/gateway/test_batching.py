"""Each caller gets the answer to its own rows, whatever happens to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.batching import Batcher
from headrace.gateway.errors import ExpiredError, ModelFaultError, NotServingError, OverloadedError

Rows = list[int]


class Model:
    """Doubles each row, when it is let go; remembers its batches."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[tuple[str, list[Rows]]] = []
        self.go = asyncio.Event()
        if not held:
            self.go.set()
        self.failure: Exception | None = None

    async def double(self, key: str, blocks: list[Rows]) -> Sequence[Rows]:
        self.batches.append((key, blocks))
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return [[2 * row for row in block] for block in blocks]


def batcher(
    model: Model, *, max_rows: int = 4, window_s: float = 0.002, queued: int = 100, in_flight: int = 2
) -> Batcher[str, Rows, Rows]:
    return Batcher(
        model.double,
        name="model",
        max_rows=max_rows,
        window_s=window_s,
        max_queued_rows=queued,
        max_in_flight=in_flight,
    )


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_idle_model_is_asked_at_once_with_all_who_came_together() -> None:
    model = Model()
    batches = batcher(model, window_s=60)
    answers = await asyncio.gather(*(batches.submit("a", [i], 1) for i in range(3)))
    assert answers == [[0], [2], [4]]
    assert model.batches == [("a", [[0], [1], [2]])]


async def test_while_a_call_is_under_way_rows_gather_until_the_batch_is_full() -> None:
    model = Model(held=True)
    batches = batcher(model, window_s=60)
    calls = [asyncio.create_task(batches.submit("a", [0], 1))]
    await settle()
    calls += [asyncio.create_task(batches.submit("a", [i, i], 2)) for i in (1, 2)]
    await settle()
    assert model.batches == [("a", [[0]]), ("a", [[1, 1], [2, 2]])]
    model.go.set()
    assert await asyncio.gather(*calls) == [[0], [2, 2], [4, 4]]


async def test_the_oldest_row_waits_no_longer_than_the_window() -> None:
    model = Model(held=True)
    batches = batcher(model, window_s=0.005)
    first = asyncio.create_task(batches.submit("a", [1], 1))
    await settle()
    second = asyncio.create_task(batches.submit("a", [2], 1))
    loop = asyncio.get_running_loop()
    began = loop.time()
    while len(model.batches) < 2:
        assert loop.time() < began + 5
        await asyncio.sleep(0.001)
    model.go.set()
    assert (await first, await second) == ([2], [4])


async def test_keys_share_no_batch() -> None:
    model = Model()
    batches = batcher(model)
    await asyncio.gather(*(batches.submit(key, [1], 1) for key in "abab"))
    assert sorted(key for key, _ in model.batches) == ["a", "b"]


async def test_a_caller_that_is_cancelled_disturbs_nobody_and_takes_no_place() -> None:
    model = Model(held=True)
    batches = batcher(model, window_s=60, in_flight=1)
    under_way = [asyncio.create_task(batches.submit("a", [i], 1)) for i in (1, 2)]
    await settle()
    queued = [asyncio.create_task(batches.submit("a", [i], 1)) for i in (3, 4)]
    await settle()
    under_way[0].cancel()
    queued[0].cancel()
    model.go.set()
    answers = await asyncio.gather(*under_way, *queued, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert isinstance(answers[2], asyncio.CancelledError)
    assert [answers[1], answers[3]] == [[4], [8]]
    assert model.batches[1] == ("a", [[4]])


async def test_a_caller_whose_deadline_passes_in_the_queue_takes_no_place() -> None:
    model = Model(held=True)
    batches = batcher(model, window_s=60, in_flight=1)
    loop = asyncio.get_running_loop()
    first = asyncio.create_task(batches.submit("a", [1], 1))
    await settle()
    late = asyncio.create_task(batches.submit("a", [2], 1, loop.time() + 0.001))
    mate = asyncio.create_task(batches.submit("a", [3], 1, loop.time() + 60))
    await settle()
    await asyncio.sleep(0.002)
    model.go.set()
    assert await first == [2]
    with pytest.raises(ExpiredError):
        await late
    assert await mate == [6]
    assert model.batches[1] == ("a", [[3]])
    with pytest.raises(ExpiredError):
        await batches.submit("a", [1], 1, loop.time() - 1)


async def test_a_failure_reaches_each_caller_as_its_own_exception() -> None:
    model = Model()
    model.failure = ModelFaultError("no score")
    batches = batcher(model)
    failures = await asyncio.gather(*(batches.submit("a", [i], 1) for i in range(3)), return_exceptions=True)
    assert [str(failure) for failure in failures] == ["no score"] * 3
    assert len({id(failure) for failure in failures}) == 3
    model.failure = None
    assert await batches.submit("a", [1], 1) == [2]


async def test_a_full_queue_refuses() -> None:
    model = Model(held=True)
    batches = batcher(model, queued=3, in_flight=1)
    first = asyncio.create_task(batches.submit("a", [0], 1))
    await settle()
    waiting = [asyncio.create_task(batches.submit("a", [i], 1)) for i in range(3)]
    await settle()
    assert batches.queued_rows == 3
    with pytest.raises(OverloadedError) as refused:
        await batches.submit("a", [9], 1)
    assert refused.value.retry_after_s > 0
    model.go.set()
    await asyncio.gather(first, *waiting)
    assert batches.queued_rows == 0


async def test_a_block_larger_than_a_batch_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="a batch of model holds 1 to 4"):
        await batcher(Model()).submit("a", [1] * 5, 5)


async def test_draining_finishes_what_is_queued_and_takes_nothing_new() -> None:
    model = Model(held=True)
    batches = batcher(model, window_s=60, in_flight=1)
    calls = [asyncio.create_task(batches.submit("a", [i], 1)) for i in range(20)]
    await settle()
    draining = asyncio.create_task(batches.drain())
    await settle()
    with pytest.raises(NotServingError):
        await batches.submit("a", [1], 1)
    model.go.set()
    await draining
    assert [call.result() for call in calls] == [[2 * i] for i in range(20)]


async def test_closing_gives_up_what_is_queued_and_under_way() -> None:
    model = Model(held=True)
    batches = batcher(model, in_flight=1)
    calls = [asyncio.create_task(batches.submit("a", [i, i, i], 3)) for i in range(3)]
    await settle()
    await batches.close()
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(failure, NotServingError) for failure in failures)


@settings(max_examples=60, deadline=None)
@given(
    callers=st.lists(
        st.tuples(
            st.integers(1, 4),  # rows
            st.sampled_from("ab"),  # key
            st.sampled_from(["stays", "cancelled", "expires"]),
            st.integers(0, 3),  # turns of the loop before the next caller
        ),
        max_size=40,
    ),
    fails=st.sets(st.integers(0, 20), max_size=4),
)
def test_each_caller_gets_its_own_rows(callers: list[tuple[int, str, str, int]], fails: set[int]) -> None:
    async def play() -> None:
        calls = 0

        async def double(_: str, blocks: list[Rows]) -> Sequence[Rows]:
            nonlocal calls
            calls += 1
            number = calls
            await asyncio.sleep(0)
            if number in fails:
                raise ModelFaultError("no score")
            return [[2 * row for row in block] for block in blocks]

        batches: Batcher[str, Rows, Rows] = Batcher(
            double, name="model", max_rows=4, window_s=0.0005, max_queued_rows=1000, max_in_flight=2
        )
        loop = asyncio.get_running_loop()
        tasks = []
        for number, (rows, key, fate, turns) in enumerate(callers):
            deadline = loop.time() + 1e-5 if fate == "expires" else None
            task = asyncio.create_task(batches.submit(key, [number] * rows, rows, deadline))
            tasks.append(task)
            if fate == "cancelled":
                loop.call_soon(task.cancel)
            for _ in range(turns):
                await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await asyncio.wait(tasks) if tasks else None
            await batches.drain()
        for number, (task, (rows, _, fate, _)) in enumerate(zip(tasks, callers, strict=True)):
            if task.cancelled():
                assert fate == "cancelled"
            elif isinstance(task.exception(), ExpiredError):
                assert fate == "expires"
            elif task.exception() is not None:
                assert isinstance(task.exception(), ModelFaultError)
                assert fails
            else:
                assert task.result() == [2 * number] * rows
        assert batches.queued_rows == 0

    with suppress(asyncio.CancelledError):
        asyncio.run(play())
