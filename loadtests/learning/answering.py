"""Calls `Predict` in an open loop, and notes which version answered each call, and when.

`python -m loadtests.learning.answering ADDRESS REQUESTS RATE TIMES` sends each message of a file once, when it is due,
and writes to TIMES (.npy, float64 (4, n)): when each call was due and when it had its answer, in seconds since 1970 on
the clock that does not jump (NaN where it had none), the number of the version that answered, and whether something was
missing for the answer. It prints `{failed, client_cpu}`.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import uvloop

from headrace.v1.prediction_service_pb2 import PredictResponse
from loadtests.gateway.caller import separate
from loadtests.gateway.delimited import read_delimited
from loadtests.gateway.open_loop import arrivals
from loadtests.gateway.opener import BEGIN_S, CONNECTIONS, OpenLoop

METHOD = "/headrace.v1.PredictionService/Predict"


def since_1970() -> float:
    """What to add to `time.perf_counter` for seconds since 1970; one offset for a whole process."""
    return time.time() - time.perf_counter()


class Noted:
    """A method whose answers are looked into.

    Attributes:
        versions: number of the version that answered, in the order of the calls; NaN where none did.
        degraded: 1 where something was missing for the answer, likewise.
    """

    def __init__(self, methods: list[Any], count: int) -> None:
        self._methods = methods
        self._next = 0
        self.versions = np.full(count, np.nan)
        self.degraded = np.zeros(count)

    async def __call__(self, request: bytes, *, timeout: float) -> None:
        """Call, in the order in which calls are made."""
        number, self._next = self._next, self._next + 1
        answer = PredictResponse.FromString(await self._methods[number % len(self._methods)](request, timeout=timeout))
        self.versions[number] = int(answer.model_version or "-1")
        self.degraded[number] = bool(answer.degradations)


async def main(address: str, requests: list[bytes], rate: float, times: Path) -> None:
    """Call; see the module."""
    async with AsyncExitStack() as stack:
        methods: list[Any] = []
        for number in range(CONNECTIONS):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=separate(number)))
            await channel.channel_ready()
            methods.append(channel.unary_unary(METHOD))
        noted = Noted(methods, len(requests))
        # The loop makes its calls in order, and a call begins before the next one is made.
        loop = OpenLoop([noted], requests)
        due = time.perf_counter() + BEGIN_S + arrivals(rate, len(requests), "poisson")
        wall, cpu = time.perf_counter(), time.process_time()
        await loop.run(due.tolist())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    offset = since_1970()
    np.save(times, np.stack([due + offset, loop.ended + offset, noted.versions, noted.degraded]))
    print(json.dumps({"failed": loop.failed, "client_cpu": cpu / wall}))


if __name__ == "__main__":
    at, file, calls_s, out = sys.argv[1:5]
    uvloop.run(main(at, read_delimited(Path(file)), float(calls_s), Path(out)))
