"""Sends events over bidirectional streams, so many of each under way, and takes the answers.

`python -m loadtests.gateway.streamer ADDRESS REQUESTS STREAMS WINDOW ANSWERS` prints `{rate, calls, client_cpu_us}`.
Messages are sent and answers taken as bytes; the answers are written to ANSWERS, for whoever checks them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop

from loadtests.gateway.caller import separate
from loadtests.gateway.delimited import read_delimited, write_delimited

METHOD = "/headrace.v1.PredictionService/StreamPredict"
PATIENCE_S = 60.0


async def main(address: str, requests: list[bytes], streams: int, window: int) -> tuple[dict[str, float], list[bytes]]:
    """Send; see the module."""
    answers: list[bytes] = []
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE_S):
        calls: list[Any] = []
        for number in range(streams):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=separate(number)))
            await channel.channel_ready()
            calls.append(channel.stream_stream(METHOD)())
        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            for number, call in enumerate(calls):
                free = asyncio.Semaphore(window)
                mine = requests[number::streams]
                tasks.create_task(_write(call, mine, free))
                tasks.create_task(_read(call, len(mine), free, answers))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"rate": len(answers) / wall, "calls": len(answers), "client_cpu_us": cpu / len(answers) * 1e6}, answers


async def _write(call: Any, requests: list[bytes], free: asyncio.Semaphore) -> None:
    for request in requests:
        await free.acquire()
        await call.write(request)
    await call.done_writing()


async def _read(call: Any, count: int, free: asyncio.Semaphore, answers: list[bytes]) -> None:
    for _ in range(count):
        answer = await call.read()
        if answer is grpc.aio.EOF:
            raise EOFError(f"the stream has ended: {await call.code()}, {await call.details()}")
        answers.append(answer)
        free.release()


if __name__ == "__main__":
    found, got = uvloop.run(main(sys.argv[1], read_delimited(Path(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])))
    write_delimited(Path(sys.argv[5]), got)
    print(json.dumps(found))
