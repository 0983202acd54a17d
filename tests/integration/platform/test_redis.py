from __future__ import annotations

import asyncio
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.platform.redis import RedisUnavailable, RedisUnsafe, answering, connect, require_safe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def server(directory: Path, *options: str) -> Iterator[str]:
    """A Redis of its own on a socket in the directory."""
    socket = directory / "redis.sock"
    program = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(directory), "--save", "", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        for line in program.stdout:
            if "accept connections" in line and socket.name in line:
                break
        yield f"unix://{socket}"
    finally:
        program.kill()
        program.communicate()


@contextmanager
def slowly_loading(directory: Path) -> Iterator[Path]:
    """The same from what it has saved, with 20 ms for each key; its socket, which comes before the data is there."""
    socket = directory / "redis.sock"
    socket.unlink(missing_ok=True)
    slowly = ["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"]
    program = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(directory), *slowly],
        stdout=subprocess.DEVNULL,
    )
    try:
        yield socket
    finally:
        program.kill()
        program.wait()


async def check(url: str) -> None:
    client = connect(url, reply_timeout_s=2.0)
    try:
        await require_safe(client)
    finally:
        await client.aclose()


async def test_the_stack_has_a_safe_one(redis_url: str, namespace: str) -> None:
    await check(redis_url)
    client = connect(redis_url)
    key = f"headrace:{{{namespace}}}:x"
    await client.set(key, b"\xff", ex=10)
    assert await client.get(key) == b"\xff"
    await client.delete(key)
    await client.aclose()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--maxmemory-policy", "allkeys-lru"), "maxmemory-policy allkeys-lru.* must be noeviction"),
        (("--replicaof", "127.0.0.1 1"), "Redis is a replica"),
    ],
)
async def test_an_unsafe_one_is_refused(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    with server(tmp_path, *options) as url, pytest.raises(RedisUnsafe, match=message):
        await check(url)


async def test_a_cluster_is_refused(tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> None:
    port, bus = str(unused_tcp_port_factory()), str(unused_tcp_port_factory())
    options = ("--port", port, "--bind", "127.0.0.1", "--cluster-enabled", "yes")
    with (
        server(tmp_path, *options, "--cluster-port", bus) as url,
        pytest.raises(RedisUnsafe, match="runs as a Cluster"),
    ):
        await check(url)


async def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(RedisUnavailable, match="Redis does not answer"):
        await check(f"unix://{tmp_path}/none.sock")


async def test_a_task_that_is_cancelled_at_any_turn_of_the_loop_ends(redis_url: str) -> None:
    """Without the connections of our own, Python 3.11 loses some of these cancellations."""
    client = connect(redis_url)

    async def ask() -> None:
        while True:
            await client.ping()

    for turns in range(1, 60):
        asking = asyncio.create_task(ask())
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        ended, _ = await asyncio.wait({asking}, timeout=5)
        assert ended, f"lost when cancelled after {turns} turns"
        assert asking.cancelled()
    # What is left of the connections still gives each command its own reply.
    assert [await client.echo(str(number)) for number in range(50)] == [str(number).encode() for number in range(50)]
    await client.aclose()


async def test_one_that_is_still_loading_is_away_and_not_unsafe(tmp_path: Path) -> None:
    with server(tmp_path) as url:
        client = connect(url)
        await client.mset({f"key-{number}": b"x" * 100 for number in range(1000)})
        await client.save()
        await client.aclose()
    with slowly_loading(tmp_path) as socket:
        async with asyncio.timeout(15):
            while not socket.exists():  # noqa: ASYNC110 (another process makes it)
                await asyncio.sleep(0.02)
            with pytest.raises(RedisUnavailable, match="still loading"):
                await check(f"unix://{socket}")


async def test_a_command_to_one_that_is_away_fails_in_one_line() -> None:
    client = connect("redis://127.0.0.1:1/0")
    with pytest.raises(RedisUnavailable, match="Redis does not answer"), answering():
        await client.get("x")
    await client.aclose()
