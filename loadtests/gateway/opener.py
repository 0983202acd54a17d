"""Calls a unary method in an open loop, from one asyncio client.

`python -m loadtests.gateway.opener ADDRESS METHOD REQUESTS RATE poisson|constant TIMES` sends each message of a file
once, when it is due, and writes to TIMES (.npy, float64 (2, n)) when each call was due and when it had its answer, NaN
where it had none. It prints `{failed, lag_p99_ms, client_cpu}`: failures by status, how late calls were sent, and the
share of a core that the client used. Near 1, or with a lag as long as the latencies, the client is the limit.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import grpc.aio
import numpy as np
import uvloop

from loadtests.gateway.caller import separate
from loadtests.gateway.delimited import read_delimited
from loadtests.gateway.open_loop import Arrivals, arrivals

CONNECTIONS = 8
TIMEOUT_S = 5.0
TICK_NS = 200_000
CLOCK_MONOTONIC = 1
BEGIN_S = 0.2


@contextmanager
def ticks(loop: asyncio.AbstractEventLoop, wake: asyncio.Event) -> Iterator[None]:
    """Set an event every 0.2 ms: the timers of an event loop know whole milliseconds, which is as long as a call."""
    library = ctypes.CDLL(None, use_errno=True)
    timer = library.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if timer < 0:
        raise OSError(ctypes.get_errno(), "no timer")
    interval = (ctypes.c_long * 4)(0, TICK_NS, 0, TICK_NS)
    if library.timerfd_settime(timer, 0, ctypes.byref(interval), None):
        raise OSError(ctypes.get_errno(), "the timer cannot be set")

    def tick() -> None:
        os.read(timer, 8)
        wake.set()

    loop.add_reader(timer, tick)
    try:
        yield
    finally:
        loop.remove_reader(timer)
        os.close(timer)


class OpenLoop:
    """Calls when they are due.

    Attributes:
        ended: when each call had its answer, on the clock of `time.perf_counter`, float64 (n,); NaN where it had none.
        sent: when each was sent.
        failed: how many had another status, by status.
    """

    def __init__(self, methods: list[Any], requests: list[bytes]) -> None:
        self._methods = methods
        self._requests = requests
        self.ended = np.full(len(requests), np.nan)
        self.sent = np.zeros(len(requests))
        self.failed: Counter[str] = Counter()

    async def _call(self, number: int) -> None:
        self.sent[number] = time.perf_counter()
        try:
            await self._methods[number % len(self._methods)](self._requests[number], timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            self.failed[error.code().name] += 1
        else:
            self.ended[number] = time.perf_counter()

    async def run(self, due: list[float]) -> None:
        """Send each call at its time, on the clock of `time.perf_counter`, and wait for all answers."""
        wake, number = asyncio.Event(), 0
        with ticks(asyncio.get_running_loop(), wake):
            async with asyncio.TaskGroup() as tasks:
                while number < len(due):
                    await wake.wait()
                    wake.clear()
                    now = time.perf_counter()
                    while number < len(due) and due[number] <= now:
                        tasks.create_task(self._call(number))
                        number += 1


async def main(address: str, method: str, requests: list[bytes], rate: float, kind: Arrivals, times: Path) -> None:
    """Call; see the module."""
    async with AsyncExitStack() as stack:
        methods: list[Any] = []
        for number in range(CONNECTIONS):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=separate(number)))
            await channel.channel_ready()
            methods.append(channel.unary_unary(method))
        loop = OpenLoop(methods, requests)
        due = time.perf_counter() + BEGIN_S + arrivals(rate, len(requests), kind)
        wall, cpu = time.perf_counter(), time.process_time()
        await loop.run(due.tolist())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    np.save(times, np.stack([due, loop.ended]))
    lag = float(np.percentile(loop.sent - due, 99)) * 1e3
    print(json.dumps({"failed": loop.failed, "lag_p99_ms": lag, "client_cpu": cpu / wall}))


if __name__ == "__main__":
    at, called, file, calls_s, distances, out = sys.argv[1:7]
    uvloop.run(
        main(at, called, read_delimited(Path(file)), float(calls_s), cast("Arrivals", distances), Path(out)),
    )
