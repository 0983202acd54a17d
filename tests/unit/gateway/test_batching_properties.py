"""What holds for the batcher whatever is cancelled, fails, expires, drains or closes, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.batch_queues import Priority
from headrace.gateway.batching import Batcher, Flush
from headrace.gateway.errors import ExpiredError, ModelFaultError, NotServingError, OverloadedError
from loadtests import virtual_clock

MAX_ROWS = 4
MS = 1e-3
INTERACTIVE, STREAM = Priority.INTERACTIVE, Priority.STREAM


@dataclass(frozen=True)
class Caller:
    """One who submits a block: after a pause since the one before, of so many rows."""

    pause: float
    rows: int
    key: str
    priority: Priority
    cancelled_after: float | None
    deadline_after: float | None


@dataclass
class Server:
    """Takes time for its calls, fails some, and remembers all."""

    a_s: float
    b_s: float
    instances: int
    fails: frozenset[int]
    miscounts: frozenset[int]
    in_flight: int = 0
    most_in_flight: int = 0
    calls: list[tuple[float, float, str, list[int], list[float | None]]] = field(default_factory=list)
    idle_since: list[tuple[float, float]] = field(default_factory=list)
    last_end: float = 0.0

    def __post_init__(self) -> None:
        self.free = asyncio.Semaphore(self.instances)

    async def process(self, key: str, blocks: list[tuple[int, int, float | None]]) -> Sequence[tuple[int, int]]:
        loop = asyncio.get_running_loop()
        if not self.in_flight:
            self.idle_since.append((self.last_end, loop.time()))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        number = len(self.calls)
        rows = sum(block[1] for block in blocks)
        self.calls.append((loop.time(), rows, key, [block[0] for block in blocks], [block[2] for block in blocks]))
        try:
            async with self.free:
                await asyncio.sleep(self.a_s + self.b_s * rows)
            if number in self.fails:
                raise ModelFaultError("no score")
            answers = [(block[0], block[1]) for block in blocks]
            return answers[1:] if number in self.miscounts else answers
        finally:
            self.in_flight -= 1
            self.last_end = loop.time()


moments = st.one_of(st.none(), st.floats(0, 5).map(lambda ms: ms * MS))
callers = st.builds(
    Caller,
    pause=st.one_of(st.just(0.0), st.floats(0, 3).map(lambda ms: ms * MS)),
    rows=st.integers(1, MAX_ROWS),
    key=st.sampled_from("abc"),
    priority=st.sampled_from(Priority),
    cancelled_after=moments,
    deadline_after=moments,
)


@settings(max_examples=250, deadline=None)
@given(
    callers=st.lists(callers, max_size=40),
    in_flight=st.integers(1, 3),
    instances=st.integers(1, 3),
    service=st.tuples(st.sampled_from([0.0, 0.3, 2.0]), st.sampled_from([0.0, 0.1])),
    window_s=st.sampled_from([None, None, 0.0, 1 * MS]),
    fails=st.frozensets(st.integers(0, 15), max_size=4),
    miscounts=st.frozensets(st.integers(0, 15), max_size=2),
    ending=st.sampled_from(["drain", "close", "early drain", "early close", "drain, then close"]),
    queued=st.sampled_from([6, 1000]),
)
def test_whatever_happens(
    callers: list[Caller],
    in_flight: int,
    instances: int,
    service: tuple[float, float],
    window_s: float | None,
    fails: frozenset[int],
    miscounts: frozenset[int],
    ending: str,
    queued: int,
) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        server = Server(service[0] * MS, service[1] * MS, instances, fails, miscounts)
        flushed: list[tuple[int, float, Flush]] = []
        batches: Batcher[str, tuple[int, int, float | None], tuple[int, int]] = Batcher(
            server.process,
            name="model",
            max_rows=MAX_ROWS,
            max_queued_rows=queued,
            max_in_flight=in_flight,
            window_s=window_s,
            observe=lambda rows, waited_s, reason: flushed.append((rows, waited_s, reason)),
        )
        tasks: list[asyncio.Task[tuple[int, int]]] = []
        came: list[float] = []
        for number, one in enumerate(callers):
            if one.pause:
                await asyncio.sleep(one.pause)
            deadline = None if one.deadline_after is None else loop.time() + one.deadline_after
            came.append(loop.time())
            task = loop.create_task(
                batches.submit(one.key, (number, one.rows, deadline), one.rows, deadline, one.priority)
            )
            tasks.append(task)
            if one.cancelled_after is not None:
                loop.call_later(one.cancelled_after, task.cancel)
        if ending.startswith("early"):
            await asyncio.sleep(0)
        elif tasks:
            # A lost wake-up stalls the virtual clock, which ends the test.
            await asyncio.wait(tasks)
        if ending.endswith("drain"):
            await batches.drain()
        elif ending == "drain, then close":
            drain = loop.create_task(batches.drain())
            await asyncio.sleep(0)
            await batches.close()
            await drain
        else:
            await batches.close()
        if tasks:
            await asyncio.wait(tasks)

        assert server.in_flight == 0
        assert batches.queued_rows == 0
        assert batches.oldest_wait_s == 0
        assert server.most_in_flight <= in_flight
        assert [rows for rows, _, _ in flushed[: len(server.calls)]] == [rows for _, rows, _, _, _ in server.calls]
        assert all(0 < rows <= MAX_ROWS for _, rows, _, _, _ in server.calls)
        served = [number for _, _, _, numbers, _ in server.calls for number in numbers]
        assert len(served) == len(set(served))
        for began, _, key, numbers, deadlines in server.calls:
            assert all(callers[number].key == key for number in numbers)
            assert all(deadline is None or deadline > began for deadline in deadlines)
            # Nobody waits while nothing is under way.
            for number in numbers:
                for idle_from, idle_until in server.idle_since:
                    assert min(idle_until, began) - max(idle_from, came[number]) < 1e-9
        allowed: dict[type, bool] = {
            ModelFaultError: bool(fails),
            RuntimeError: bool(miscounts),
            NotServingError: ending != "drain",
        }
        allowed[OverloadedError] = queued == 6
        for number, (task, one) in enumerate(zip(tasks, callers, strict=True)):
            if task.cancelled():
                assert one.cancelled_after is not None
            elif task.exception() is None:
                assert task.result() == (number, one.rows)
            else:
                cases = allowed | {ExpiredError: one.deadline_after is not None}
                assert cases[type(task.exception())], task.exception()
        errors = [id(task.exception()) for task in tasks if not task.cancelled() and task.exception()]
        assert len(errors) == len(set(errors))

    virtual_clock.run(play())


def make(server: Server, **arguments: object) -> Batcher[str, tuple[int, int, float | None], tuple[int, int]]:
    settled: dict[str, object] = {"name": "model", "max_rows": MAX_ROWS, "max_queued_rows": 10_000, "max_in_flight": 2}
    return Batcher(server.process, **(settled | arguments))  # type: ignore[arg-type]


def quiet_server(a_s: float, instances: int = 1) -> Server:
    return Server(a_s, 0.0, instances, frozenset(), frozenset())


def test_stream_blocks_have_each_eighth_batch_at_least_and_interactive_ones_all_others() -> None:
    async def play() -> None:
        server = quiet_server(1 * MS)
        batches = make(server, max_in_flight=1)
        tasks = [
            asyncio.create_task(batches.submit("a", (i, 1, None), 1, None, INTERACTIVE if i >= 20 else STREAM))
            for i in range(200)
        ]
        await asyncio.wait(tasks)
        of_stream = [all(number < 20 for number in numbers) for _, _, _, numbers, _ in server.calls]
        assert [i for i, stream in enumerate(of_stream) if stream][:5] == [7, 15, 23, 31, 39]
        assert all(number >= 20 for _, _, _, numbers, _ in server.calls[:7] for number in numbers)

    virtual_clock.run(play())


def test_a_key_that_has_only_stream_blocks_is_passed_over_seven_times_at_most() -> None:
    async def play() -> None:
        server = quiet_server(1 * MS)
        batches = make(server, max_in_flight=1)
        tasks = [asyncio.create_task(batches.submit("s", (0, 1, None), 1, None, STREAM))]
        tasks += [asyncio.create_task(batches.submit("a", (i, 1, None), 1)) for i in range(1, 100)]
        await asyncio.wait(tasks)
        assert [key for _, _, key, _, _ in server.calls][:9] == ["a"] * 7 + ["s", "a"]

    virtual_clock.run(play())


@pytest.mark.parametrize("window_s", [None, 100 * MS])
def test_keys_take_turns_however_much_waits_for_one(window_s: float | None) -> None:
    async def play() -> None:
        server = quiet_server(1 * MS)
        batches = make(server, max_in_flight=1, window_s=window_s)
        tasks = [asyncio.create_task(batches.submit("a", (i, 1, None), 1)) for i in range(100)]
        await asyncio.sleep(0.5 * MS)
        tasks += [asyncio.create_task(batches.submit(key, (0, 1, None), 1)) for key in "bc"]
        await asyncio.wait(tasks)
        assert sorted(key for _, _, key, _, _ in server.calls[1:4]) == ["a", "b", "c"]

    virtual_clock.run(play())


def test_a_key_takes_its_turn_though_batches_of_another_are_always_full() -> None:
    async def play() -> None:
        server = quiet_server(1 * MS)
        batches = make(server, max_in_flight=2)
        tasks = [asyncio.create_task(batches.submit("a", (i, 1, None), 1)) for i in range(400)]
        await asyncio.sleep(20.5 * MS)
        before = len(server.calls)
        tasks.append(asyncio.create_task(batches.submit("b", (0, 1, None), 1)))
        await asyncio.wait(tasks)
        assert "b" in [key for _, _, key, _, _ in server.calls[before : before + 3]]

    virtual_clock.run(play())


async def learn(batches: Batcher[str, tuple[int, int, float | None], tuple[int, int]], calls: int = 10) -> None:
    for i in range(calls):
        await batches.submit("a", (i, 1, None), 1)


def test_what_cannot_come_in_time_is_refused_at_once_and_only_then() -> None:
    async def play() -> None:
        server = quiet_server(10 * MS)
        batches = make(server, max_in_flight=1)
        await learn(batches)
        loop = asyncio.get_running_loop()
        # Nothing is under way: the estimate may be out of date.
        alone = asyncio.create_task(batches.submit("a", (0, 1, None), 1, loop.time() + 5 * MS))
        await asyncio.sleep(1 * MS)
        asked = loop.time()
        with pytest.raises(ExpiredError, match="cannot answer within the deadline"):
            await batches.submit("a", (1, 1, None), 1, loop.time() + 9 * MS)
        assert loop.time() == asked
        # 9 ms of the call before it, 10 of its own: refused when the slot is free, before it takes it.
        waits = asyncio.create_task(batches.submit("a", (2, 1, None), 1, loop.time() + 15 * MS))
        fits = asyncio.create_task(batches.submit("a", (3, 1, None), 1, loop.time() + 25 * MS))
        assert await alone == (0, 1)
        assert await fits == (3, 1)
        with pytest.raises(ExpiredError):
            await waits
        # What waits ahead counts, in full batches.
        tasks = [asyncio.create_task(batches.submit("a", (i, 1, None), 1)) for i in range(20)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked = loop.time()
        with pytest.raises(ExpiredError):
            await batches.submit("a", (1, 1, None), 1, loop.time() + 45 * MS)
        assert loop.time() == asked
        assert await batches.submit("a", (1, 1, None), 1, loop.time() + 80 * MS) == (1, 1)
        await asyncio.wait(tasks)

    virtual_clock.run(play())


def test_a_server_that_became_faster_is_found_out_though_all_deadlines_are_short() -> None:
    async def play() -> None:
        server = quiet_server(10 * MS)
        batches = make(server)
        await learn(batches)
        server.a_s = 1 * MS
        loop = asyncio.get_running_loop()
        answered = 0
        for _ in range(200):
            pair = [asyncio.create_task(batches.submit("a", (i, 1, None), 1, loop.time() + 4 * MS)) for i in range(2)]
            await asyncio.sleep(0)
            late = asyncio.create_task(batches.submit("a", (2, 1, None), 1, loop.time() + 4 * MS))
            answered = sum(
                not isinstance(one, ExpiredError) for one in await asyncio.gather(late, *pair, return_exceptions=True)
            )
        assert answered == 3

    virtual_clock.run(play())


@pytest.mark.parametrize(("instances", "share"), [(1, 1.0), (2, 0.5)])
def test_calls_follow_one_another_as_the_server_can_take_them(instances: int, share: float) -> None:
    async def play() -> None:
        server = quiet_server(10 * MS, instances)
        batches = make(server, max_rows=1000)
        loop = asyncio.get_running_loop()
        tasks = []
        for i in range(4000):
            tasks.append(asyncio.create_task(batches.submit("a", (i, 1, None), 1)))
            await asyncio.sleep(0.5 * MS)
        await asyncio.wait(tasks)
        begins = [began for began, _, _, _, _ in server.calls[len(server.calls) // 2 :]]
        gaps = sorted(later - earlier for earlier, later in pairwise(begins))
        assert gaps[len(gaps) // 2] == pytest.approx(share * 10 * MS, rel=0.15)
        assert gaps[len(gaps) // 50] > 0.4 * share * 10 * MS
        assert gaps[-1] < 25 * MS
        assert loop.time() > 0

    virtual_clock.run(play())


def test_a_server_that_loses_an_instance_and_gets_it_back_is_followed() -> None:
    async def play() -> None:
        server = quiet_server(10 * MS, 2)
        batches = make(server, max_rows=1000)
        tasks = []

        async def median_gap() -> float:
            first = len(server.calls)
            for i in range(6000):
                tasks.append(asyncio.create_task(batches.submit("a", (i, 1, None), 1)))
                await asyncio.sleep(0.5 * MS)
            begins = [began for began, _, _, _, _ in server.calls[first:]]
            later = begins[len(begins) // 2 :]
            gaps = sorted(b - a for a, b in pairwise(later))
            return gaps[len(gaps) // 2]

        assert await median_gap() == pytest.approx(5 * MS, rel=0.15)
        await server.free.acquire()
        assert await median_gap() == pytest.approx(10 * MS, rel=0.15)
        server.free.release()
        assert await median_gap() == pytest.approx(5 * MS, rel=0.15)
        await asyncio.wait(tasks)

    virtual_clock.run(play())


def test_a_call_that_hangs_holds_up_nobody_else() -> None:
    async def play() -> None:
        server = quiet_server(1 * MS, 2)
        batches = make(server)
        await learn(batches)
        server.a_s = 5.0
        began = asyncio.get_running_loop().time()
        hung = asyncio.create_task(batches.submit("a", (0, 1, None), 1))
        await asyncio.sleep(0.1 * MS)
        server.a_s = 1 * MS
        loop = asyncio.get_running_loop()
        for i in range(1000):
            asked = loop.time()
            await batches.submit("a", (i, 1, None), 1)
            assert loop.time() - asked < 10 * MS
        # It ends while another call is under way: that it was late says nothing about when the next may begin.
        await asyncio.sleep(5.0 - loop.time() + began - 20 * MS)
        first = len(server.calls)
        tasks = [hung]
        for i in range(400):
            tasks.append(asyncio.create_task(batches.submit("a", (i, 1, None), 1)))
            await asyncio.sleep(0.25 * MS)
        await asyncio.wait(tasks)
        after = [call for call in server.calls[first:] if call[0] > began + 5.0]
        # Two at a time, for the 80 ms that are left.
        assert len(after) > 130

    virtual_clock.run(play())


def test_a_batch_says_why_it_left() -> None:
    async def play() -> None:
        server = quiet_server(10 * MS)
        flushed: list[tuple[int, float, Flush]] = []
        batches = make(server, observe=lambda *batch: flushed.append(batch))
        await learn(batches, 3)
        first = asyncio.create_task(batches.submit("a", (0, 1, None), 1))
        await asyncio.sleep(1 * MS)
        full = [asyncio.create_task(batches.submit("a", (i, 1, None), 1)) for i in range(4)]
        await asyncio.wait([first, *full])
        assert [reason for _, _, reason in flushed] == [Flush.IDLE] * 4 + [Flush.FULL]
        flushed.clear()
        fixed = make(server, window_s=2 * MS, observe=lambda *batch: flushed.append(batch))
        first = asyncio.create_task(fixed.submit("a", (0, 1, None), 1))
        await asyncio.sleep(1 * MS)
        assert batches.oldest_wait_s == 0
        second = asyncio.create_task(fixed.submit("a", (0, 1, None), 1))
        await asyncio.sleep(1 * MS)
        assert fixed.oldest_wait_s == pytest.approx(1 * MS)
        await asyncio.wait([first, second])
        assert [(rows, round(waited_s / MS, 3), reason) for rows, waited_s, reason in flushed] == [
            (1, 0, Flush.IDLE),
            (1, 2, Flush.WAITED),
        ]

    virtual_clock.run(play())


def test_a_caller_that_is_cancelled_gives_its_room_back() -> None:
    async def play() -> None:
        server = quiet_server(10 * MS)
        batches = make(server, max_queued_rows=4, max_in_flight=1)
        first = asyncio.create_task(batches.submit("a", (0, 1, None), 1))
        await asyncio.sleep(1 * MS)
        gone = [asyncio.create_task(batches.submit("a", (i, 2, None), 2)) for i in range(2)]
        await asyncio.sleep(1 * MS)
        with pytest.raises(OverloadedError):
            await batches.submit("a", (1, 1, None), 1)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
        assert batches.queued_rows == 0
        assert batches.oldest_wait_s == 0
        assert await batches.submit("a", (7, 4, None), 4) == (7, 4)
        assert await first == (0, 1)

    virtual_clock.run(play())


def test_closing_before_a_call_began_leaves_nobody_waiting() -> None:
    async def play() -> None:
        batches = make(quiet_server(10 * MS))
        task = asyncio.create_task(batches.submit("a", (0, 1, None), 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await batches.close()
        with pytest.raises(NotServingError):
            await task

    virtual_clock.run(play())


def test_many_keys_come_and_go_and_few_are_remembered() -> None:
    async def play() -> None:
        batches = make(quiet_server(0.1 * MS))
        for i in range(500):
            await batches.submit(f"version-{i}", (i, 1, None), 1)
        assert len(batches._queues._by_key) <= 64

    virtual_clock.run(play())


def test_a_timer_for_one_who_has_gone_does_not_hold_up_the_next() -> None:
    async def play() -> None:
        server = quiet_server(1 * MS)
        batches = make(server, window_s=100 * MS)
        first = asyncio.create_task(batches.submit("a", (0, 1, None), 1))
        await asyncio.sleep(0.5 * MS)
        gone = asyncio.create_task(batches.submit("a", (1, 1, None), 1))
        await asyncio.sleep(0.1 * MS)
        gone.cancel()
        await first
        await asyncio.sleep(1 * MS)
        loop = asyncio.get_running_loop()
        asked = loop.time()
        await batches.submit("a", (2, 1, None), 1)
        assert loop.time() - asked < 1.1 * MS

    virtual_clock.run(play())
