"""Admission control under overload, simulated on a virtual clock: `python -m loadtests.gateway.admission`.

Requests come as a Poisson process at a multiple of what the server does in full batches, each with a deadline that only
its caller knows. Goodput is what is answered within it, as a share of the server's capacity.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from headrace.gateway.admission import Admission
from headrace.gateway.batching import Batcher, Flush
from headrace.gateway.errors import OverloadedError
from loadtests import virtual_clock
from loadtests.gateway.batching import Server

MAX_ROWS = 256
ROWS = 8
DEADLINE_S = 0.25


@dataclass(frozen=True)
class Outcome:
    """Of a run.

    Attributes:
        goodput: rows answered within the deadline, as a share of the server's capacity.
        p50_s: median latency of what was answered at all, in seconds.
        p99_s: 99th percentile of the same.
        refused: share of the requests that were refused.
        retry_s: mean delay that these were told, in seconds.
    """

    goodput: float
    p50_s: float
    p99_s: float
    refused: float
    retry_s: float


async def _run(server: Server, offered: float, duration_s: float, *, controlled: bool, seed: int) -> Outcome:
    loop = asyncio.get_running_loop()
    chance = random.Random(seed)
    instance = asyncio.Semaphore(server.instances)

    async def process(_: None, blocks: list[int]) -> list[int]:
        async with instance:
            await asyncio.sleep(server.a_s + server.b_s * sum(blocks))
        return blocks

    def observe(rows: int, waited_s: float, _: Flush) -> None:
        admission.left(rows, waited_s)

    batches: Batcher[None, int, int] = Batcher(
        process, name="rows", max_rows=MAX_ROWS, max_queued_rows=10**9, max_in_flight=2, observe=observe
    )
    admission = Admission(
        lambda: batches.queued_rows,
        lambda: batches.oldest_wait_s,
        loop.time,
        target_s=0.02,
        interval_s=0.1,
        spread=chance.random,
    )
    took: list[float] = []
    retries: list[float] = []
    good = 0

    async def ask(came: float) -> None:
        nonlocal good
        await batches.submit(None, ROWS, ROWS)
        took.append(loop.time() - came)
        good += loop.time() - came <= DEADLINE_S and loop.time() <= duration_s

    rate = offered * server.capacity / ROWS
    came, asked, tasks = 0.0, 0, set[asyncio.Task[None]]()
    while came < duration_s:
        came += chance.expovariate(rate)
        await asyncio.sleep(came - loop.time())
        asked += 1
        try:
            if controlled:
                admission.admit(ROWS)
        except OverloadedError as error:
            retries.append(error.retry_after_s)
        else:
            task = loop.create_task(ask(came))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    while tasks:
        await asyncio.wait(tasks)
    took.sort()
    return Outcome(
        good * ROWS / duration_s / server.capacity,
        took[len(took) // 2],
        took[int(len(took) * 0.99)],
        len(retries) / asked,
        sum(retries) / len(retries) if retries else 0.0,
    )


def overload(server: Server, offered: float, *, controlled: bool, duration_s: float = 2.0, seed: int = 1) -> Outcome:
    """Offer a multiple of the capacity for a while.

    Args:
        server: what takes the calls.
        offered: multiple of its capacity.
        controlled: whether admission is controlled.
        duration_s: for how long, in seconds.
        seed: of the arrivals.
    """
    return virtual_clock.run(_run(server, offered, duration_s, controlled=controlled, seed=seed))


SERVERS = {"0.3 ms + 2 µs": Server(0.3e-3, 2e-6), "2 ms + 20 µs": Server(2e-3, 20e-6)}


def main() -> None:
    """Print a table."""
    print("| server | offered | admission | goodput | refused | p50, ms | p99, ms | told to wait, ms |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, server in SERVERS.items():
        for offered in (0.5, 1.0, 1.5, 3.0):
            for controlled in (True, False):
                one = overload(server, offered, controlled=controlled)
                print(
                    f"| {name} | {offered:g} × | {'controlled' if controlled else 'none'} | {one.goodput:.2f} "
                    f"| {one.refused:.2f} | {one.p50_s * 1e3:.1f} | {one.p99_s * 1e3:.1f} | {one.retry_s * 1e3:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
