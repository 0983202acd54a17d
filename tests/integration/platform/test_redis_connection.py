from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.exceptions

from headrace.platform.redis_connection import RedisConnections, packed
from tests.integration.platform.test_redis import server


@pytest.fixture
async def connections(redis_url: str) -> AsyncIterator[RedisConnections]:
    made = RedisConnections(redis_url)
    yield made
    await made.aclose()


@pytest.fixture
def key(namespace: str) -> str:
    return f"headrace:{{{namespace}}}:x"


async def test_replies_come_in_order(connections: RedisConnections, key: str) -> None:
    value = b"\r\n\x00\xff" * 300_000
    replies = await connections.execute(("SET", key, value, "EX", 10), ("GET", key), ("MGET", key, f"{key}:none"))
    assert replies == [b"OK", value, [value, None]]
    assert await connections.transaction(("APPEND", key, b"1"), ("STRLEN", key)) == [len(value) + 1] * 2
    assert await connections.execute(("DEL", key)) == [1]


async def test_errors_are_those_of_redis_py(connections: RedisConnections, key: str) -> None:
    with pytest.raises(redis.exceptions.NoScriptError):
        await connections.execute(("EVALSHA", "0" * 40, 0))
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        await connections.execute(("HSET", key, "a", 1), ("GET", key), ("EXPIRE", key, 10))
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        await connections.transaction(("GET", key), ("HGET", key, "a"))
    assert await connections.execute(("HGET", key, "a"), ("DEL", key)) == [b"1", 1]


async def test_many_calls_at_once_get_their_own_replies(connections: RedisConnections) -> None:
    replies = await asyncio.gather(*(connections.execute(("ECHO", str(number))) for number in range(200)))
    assert replies == [[str(number).encode()] for number in range(200)]


async def test_a_cancelled_call_leaves_no_reply_behind(redis_url: str) -> None:
    connections = RedisConnections(redis_url, most=1)
    await connections.execute(("PING",))
    for turns in range(4):
        call = asyncio.create_task(connections.execute(("ECHO", "theirs")))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert await connections.execute(("ECHO", "ours")) == [b"ours"]
    await connections.aclose()


async def test_a_late_reply_is_not_taken_for_the_next_one(redis_url: str, namespace: str) -> None:
    connections = RedisConnections(redis_url, reply_timeout_s=0.2, most=1)
    with pytest.raises(redis.exceptions.TimeoutError, match="did not answer within"):
        await connections.execute(("BLPOP", f"headrace:{{{namespace}}}:never", 1))
    assert await connections.execute(("ECHO", "ours")) == [b"ours"]
    await connections.aclose()


async def test_each_call_has_all_of_the_time_for_its_reply(redis_url: str, namespace: str) -> None:
    # Many calls share one timer, and their own time begins with each of them.
    connections = RedisConnections(redis_url, reply_timeout_s=0.6, most=1)
    never = f"headrace:{{{namespace}}}:never"
    for _ in range(3):
        assert await connections.execute(("BLPOP", never, "0.4")) == [None]
    with pytest.raises(redis.exceptions.TimeoutError, match=r"within 0\.6 s"):
        await connections.execute(("BLPOP", never, 2))
    await connections.aclose()


async def test_a_packed_command_is_the_same(connections: RedisConnections, key: str) -> None:
    assert await connections.transaction(packed("SET", key, b"\r\n", "EX", 10), packed("GET", key), ("DEL", key)) == [
        b"OK",
        b"\r\n",
        1,
    ]


async def test_a_password_a_database_and_a_server_that_goes_away(tmp_path: Path) -> None:
    with server(tmp_path, "--requirepass", "secret") as url:
        refused = RedisConnections(url)
        with pytest.raises(redis.exceptions.AuthenticationError):
            await refused.execute(("PING",))
        connections = RedisConnections(f"unix://:secret@{tmp_path}/redis.sock?db=3")
        assert await connections.execute(("SET", "a", "1"), ("SELECT", 0), ("EXISTS", "a")) == [b"OK", b"OK", 0]
        waiting = asyncio.create_task(connections.execute(("BLPOP", "never", 30)))
        assert await connections.execute(("PING",)) == [b"PONG"]
    with pytest.raises(redis.exceptions.ConnectionError):
        await waiting
    with pytest.raises(redis.exceptions.ConnectionError, match="no connection to Redis at"):
        await connections.execute(("PING",))
    await connections.aclose()
    await refused.aclose()
