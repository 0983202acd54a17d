"""gRPC's server takes in several calls at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from headrace.gateway.errors import OverloadedError
from headrace.gateway.grpc_errors import PUSHBACK_KEY
from headrace.gateway.grpc_intake import AT_ONCE, CallIntake, is_known

CALLS = 64
BUSY_S = 0.005
PATH = "/test.Service/Call"


async def turns_until_all_are_taken_in(at_once: int) -> int:
    """Turns of a busy loop in which so many calls, sent together, come to their handler."""
    taken = 0
    all_taken = asyncio.Event()

    async def handle(_: bytes, __: Any) -> bytes:
        nonlocal taken
        taken += 1
        if taken == CALLS:
            all_taken.set()
        await all_taken.wait()
        return b""

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(handle)
    server.add_registered_method_handlers("test.Service", {"Call": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    intake = CallIntake(server, {PATH: handler}, (), at_once) if at_once else None
    async with asyncio.timeout(30):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.channel_ready()
            call: Any = channel.unary_unary(PATH)
            calls = [asyncio.ensure_future(call(b"")) for _ in range(CALLS)]
            turns = 0
            while not all_taken.is_set():
                # Work on a batch.
                time.sleep(BUSY_S)  # noqa: ASYNC251
                await asyncio.sleep(0)
                turns += 1
            await asyncio.gather(*calls)
        await server.stop(0)
        if intake is not None:
            await intake.ended()
    return turns


async def test_a_busy_loop_takes_in_several_calls_a_turn() -> None:
    alone = await turns_until_all_are_taken_in(0)
    together = await turns_until_all_are_taken_in(AT_ONCE)
    assert together < alone / 2, f"{CALLS} calls in {together} turns, and in {alone} one at a time"


async def test_a_refused_call_is_not_read() -> None:
    read = answered = 0
    refused: list[grpc.aio.AioRpcError] = []
    left: list[float | None] = []

    def parse(content: bytes) -> bytes:
        nonlocal read
        read += 1
        return content

    async def handle(_: bytes, __: Any) -> bytes:
        return b""

    def turn_away(left_s: Callable[[], float | None]) -> None:
        left.append(left_s())
        raise OverloadedError("too much is asked for", 0.25)

    server = grpc.aio.server()
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(handle, request_deserializer=parse) for name in ("Call", "Other")
    }
    server.add_registered_method_handlers("test.Service", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    of_path = {f"/test.Service/{name}": handler for name, handler in handlers.items()}
    intake = CallIntake(server, of_path, (), turn_away=turn_away, refusable=[PATH])
    async with asyncio.timeout(30):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_unary(PATH)
            for _ in range(CALLS):
                try:
                    await call(bytes(100_000), timeout=20)
                except grpc.aio.AioRpcError as error:
                    refused.append(error)
                else:
                    answered += 1
            assert read == answered
            # The server's own loop takes in some, which are not asked about.
            assert len(refused) > CALLS / 2
            for one in refused:
                assert one.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert one.details() == "too much is asked for"
                assert (PUSHBACK_KEY, "250") in tuple(one.trailing_metadata() or ())
            # gRPC rounds deadlines up when it sends them.
            assert all(one is not None and 10 < one < 21 for one in left)
            other: Any = channel.unary_unary("/test.Service/Other")
            for _ in range(CALLS):
                assert await other(b"") == b""
        await server.stop(0)
        await intake.ended()


def test_the_locked_version_is_the_known_one() -> None:
    # Another one: read its asynchronous server again, then change the version that is known.
    assert is_known()
