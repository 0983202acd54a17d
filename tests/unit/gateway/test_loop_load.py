"""How long batches gather rows for a busy event loop."""

from __future__ import annotations

import asyncio
import time

import pytest

from headrace.gateway.batching import Batcher, Flush
from headrace.gateway.loop_load import LONGEST_REST, LoopLoad, rest_for, wanted_s
from headrace.gateway.loop_rest import LoopRest
from loadtests.virtual_clock import run


def test_the_busier_the_longer() -> None:
    assert [rest_for(share) for share in (0.0, 0.8, 0.98, 1.0)] == [0.0, 0.0, LONGEST_REST, LONGEST_REST]
    assert 0 < rest_for(0.85) < rest_for(0.9) < LONGEST_REST


def test_load_follows_what_the_thread_wanted() -> None:
    now, wanted = 0.0, 0.0
    load = LoopLoad(lambda: wanted, lambda: now)
    for _ in range(50):
        now += 0.02
        wanted += 0.015
        share = load.share
    assert share == pytest.approx(0.75, abs=0.01)
    # A pause says at once that it is over.
    now += 10
    assert load.share == pytest.approx(0, abs=0.01)


def test_a_thread_that_works_wants_the_processor() -> None:
    wanted = wanted_s()
    before = wanted()
    until = time.thread_time() + 0.05
    while time.thread_time() < until:
        pass
    assert wanted() - before >= 0.045


def test_after_a_call_the_next_gathers_rows_for_as_long_as_is_said() -> None:
    left: list[tuple[float, int, Flush]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def work(_: None, blocks: list[int]) -> list[int]:
            await asyncio.sleep(0.010)
            return blocks

        batcher: Batcher[None, int, int] = Batcher(
            work,
            name="test",
            max_rows=4,
            max_queued_rows=100,
            max_in_flight=2,
            rest=LoopRest(lambda: 2.0),
            observe=lambda rows, _, reason: left.append((loop.time(), rows, reason)),
        )
        began = loop.time()
        await batcher.submit(None, 1, 1)
        # It rests until 30 ms; who comes meanwhile goes together.
        await asyncio.sleep(0.005)
        await asyncio.gather(batcher.submit(None, 2, 1), batcher.submit(None, 3, 1))
        # Four are a full batch, which waits for nothing.
        await asyncio.gather(*(batcher.submit(None, one, 1) for one in range(4)))
        # A second full batch goes beside the first, and a third, however full, waits for one of them.
        await asyncio.sleep(0.5)
        await asyncio.gather(*(batcher.submit(None, one, 1) for one in range(9)))
        # And whoever comes after the rest, waits for nothing either.
        await asyncio.sleep(1)
        await batcher.submit(None, 9, 1)
        left[:] = [(round(at - began, 6), rows, reason) for at, rows, reason in left]

    run(main())
    assert left == [
        (0.0, 1, Flush.IDLE),
        (0.03, 2, Flush.WAITED),
        (0.04, 4, Flush.FULL),
        (0.55, 4, Flush.FULL),
        (0.55, 4, Flush.FULL),
        (0.58, 1, Flush.WAITED),
        (1.59, 1, Flush.IDLE),
    ]


def test_a_drain_does_not_rest() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()

        async def work(_: None, blocks: list[int]) -> list[int]:
            await asyncio.sleep(0.01)
            return blocks

        batcher: Batcher[None, int, int] = Batcher(
            work, name="test", max_rows=4, max_queued_rows=9, max_in_flight=1, rest=LoopRest(lambda: 1.0)
        )
        await batcher.submit(None, 1, 1)
        began = loop.time()
        waiting = asyncio.ensure_future(batcher.submit(None, 2, 1))
        await asyncio.sleep(0)
        await batcher.drain()
        assert await waiting == 2
        return loop.time() - began

    assert run(main()) == pytest.approx(0.01, abs=1e-6)
