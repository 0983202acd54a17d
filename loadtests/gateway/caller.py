"""Calls a unary method as fast as the answers come, from one asyncio client: the own client beside ghz.

`python -m loadtests.gateway.caller ADDRESS METHOD REQUESTS CONCURRENCY CONNECTIONS` sends each message of a file once
and prints `{rate, calls, p50_ms, p99_ms, client_cpu_us, failed}`. Messages are sent and answers taken as bytes, so that
the client costs as little as a Python client can. `--answers FILE` keeps the answers, `--root FILE` is for TLS, and
each `--header NAME=VALUE` goes with every call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import uvloop

from loadtests.gateway.delimited import read_delimited, write_delimited

TIMEOUT_S = 20.0
OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


def separate(number: int) -> list[tuple[str, Any]]:
    """Options that give a channel a connection of its own."""
    return [*OPTIONS, ("grpc.use_local_subchannel_pool", 1), ("headrace.bench.connection", number)]


async def main(given: argparse.Namespace) -> dict[str, Any]:
    """Call; see the module."""
    concurrency, connections = given.concurrency, given.connections
    headers = [tuple(one.split("=", 1)) for one in given.header] or None
    credentials = grpc.ssl_channel_credentials(given.root.read_bytes()) if given.root else None
    latencies: list[float] = []
    answers: list[bytes] = []
    failed: Counter[str] = Counter()
    waiting = iter(read_delimited(given.requests))

    async def call_on(method_of: Any, mine: Iterator[bytes]) -> None:
        for request in mine:
            began = time.perf_counter()
            try:
                answers.append(await method_of(request, timeout=TIMEOUT_S, metadata=headers))
            except grpc.aio.AioRpcError as error:
                failed[f"{error.code().name}: {error.details()}"] += 1
            latencies.append(time.perf_counter() - began)

    async with AsyncExitStack() as stack:
        methods: list[Any] = []
        for number in range(connections):
            channel = await stack.enter_async_context(_channel(given.address, credentials, separate(number)))
            await channel.channel_ready()
            methods.append(channel.unary_unary(given.method))
        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            for number in range(concurrency):
                tasks.create_task(call_on(methods[number % connections], waiting))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    return {
        "rate": len(answers) / wall,
        "calls": len(latencies),
        "p50_ms": p50,
        "p99_ms": p99,
        "client_cpu_us": cpu / max(1, len(answers)) * 1e6,
        "failed": failed,
        "answers": answers,
    }


def _channel(address: str, credentials: Any, options: list[tuple[str, Any]]) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("method")
    parser.add_argument("requests", type=Path)
    parser.add_argument("concurrency", type=int)
    parser.add_argument("connections", type=int)
    parser.add_argument("--answers", type=Path)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--header", action="append", default=[])
    return parser.parse_args()


if __name__ == "__main__":
    arguments = _arguments()
    found = uvloop.run(main(arguments))
    got = found.pop("answers")
    if arguments.answers is not None:
        write_delimited(arguments.answers, got)
    print(json.dumps(found))
