"""Calls a unary method as fast as the answers come, from one asyncio client: the own client beside ghz.

`python -m loadtests.gateway.caller ADDRESS METHOD REQUESTS CONCURRENCY CONNECTIONS [ANSWERS]` sends each message of a
file once and prints `{rate, calls, p50_ms, p99_ms, failed}`. Messages are sent and answers taken as bytes, so that the
client costs as little as a Python client can; the answers are written to ANSWERS where it is given.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import uvloop

from loadtests.gateway.requests import read_delimited, write_raw

TIMEOUT_S = 20.0
OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


def separate(number: int) -> list[tuple[str, Any]]:
    """Options that give a channel a connection of its own."""
    return [*OPTIONS, ("grpc.use_local_subchannel_pool", 1), ("headrace.bench.connection", number)]


async def main(address: str, method: str, requests: list[bytes], concurrency: int, connections: int) -> dict[str, Any]:
    """Call; see the module."""
    latencies: list[float] = []
    answers: list[bytes] = []
    failed: Counter[str] = Counter()
    waiting = iter(requests)

    async def call_on(method_of: Any, mine: Iterator[bytes]) -> None:
        for request in mine:
            began = time.perf_counter()
            try:
                answers.append(await method_of(request, timeout=TIMEOUT_S))
            except grpc.aio.AioRpcError as error:
                failed[f"{error.code().name}: {error.details()}"] += 1
            latencies.append(time.perf_counter() - began)

    async with AsyncExitStack() as stack:
        methods: list[Any] = []
        for number in range(connections):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=separate(number)))
            await channel.channel_ready()
            methods.append(channel.unary_unary(method))
        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            for number in range(concurrency):
                tasks.create_task(call_on(methods[number % connections], waiting))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    return {
        "rate": len(answers) / wall,
        "calls": len(answers),
        "p50_ms": p50,
        "p99_ms": p99,
        "client_cpu_us": cpu / max(1, len(answers)) * 1e6,
        "failed": failed,
        "answers": answers,
    }


if __name__ == "__main__":
    found = uvloop.run(
        main(sys.argv[1], sys.argv[2], read_delimited(Path(sys.argv[3])), int(sys.argv[4]), int(sys.argv[5]))
    )
    got = found.pop("answers")
    if len(sys.argv) > 6:
        write_raw(Path(sys.argv[6]), got)
    print(json.dumps(found))
