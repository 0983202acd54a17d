"""Connections to the Redis that keeps the feature state, and a check that it is one that does not lose it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from headrace.platform.errors import OperatorError

Client = redis.asyncio.Redis

CONNECT_TIMEOUT_S = 2.0
REPLY_TIMEOUT_S = 5.0
SAFETY_CHECK_S = 2.0


class RedisFault(OperatorError):
    """Something is wrong with Redis."""


class RedisUnavailable(RedisFault):
    """Redis does not answer."""

    retriable = True


class RedisUnsafe(RedisFault):
    """This Redis may lose or spread state: the message says which setting, and what is allowed."""


class _Cancellable:
    """Mixed into a connection of redis-py: a cancellation that comes while a command is sent is not lost.

    redis-py sends within `asyncio.wait_for`. On Python 3.11 that returns the result, and drops the cancellation, when
    both come in the same turn of the event loop (python/cpython#86296). A loop that asks Redis again and again would
    then go on for ever, and a service would not stop within its deadline.
    """

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send; `CancelledError` when cancelled meanwhile."""
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        await super().send_packed_command(command, check_health)  # type: ignore[misc]
        if task is not None and task.cancelling() > before:
            # Its reply would be taken for that of the next command.
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise asyncio.CancelledError


class _TcpConnection(_Cancellable, redis.asyncio.Connection):
    pass


class _TlsConnection(_Cancellable, redis.asyncio.SSLConnection):
    pass


class _SocketFileConnection(_Cancellable, redis.asyncio.UnixDomainSocketConnection):
    pass


_CONNECTIONS: dict[type, type] = {
    one.__mro__[2]: one for one in (_TcpConnection, _TlsConnection, _SocketFileConnection)
}


def connect(url: str, *, max_connections: int = 32, reply_timeout_s: float = REPLY_TIMEOUT_S) -> Client:
    """A client that fails rather than hangs. Values are bytes. Nothing is sent yet; close it with `aclose()`.

    Args:
        url: `redis://host:port/db`, `rediss://` for TLS, `unix://` for a socket.
        max_connections: size of the pool.
        reply_timeout_s: how long a reply may take, in seconds.
    """
    # A socket file has no TCP options to set.
    tcp: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    pool = redis.asyncio.ConnectionPool.from_url(
        url,
        decode_responses=False,
        max_connections=max_connections,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=reply_timeout_s,
        health_check_interval=0,
        # A command that is not idempotent must not be sent twice behind the caller's back.
        retry=Retry(NoBackoff(), 0),
        **tcp,
    )
    pool.connection_class = _CONNECTIONS[pool.connection_class]
    return redis.asyncio.Redis.from_pool(pool)


@contextmanager
def answering() -> Iterator[None]:
    """Turn what redis-py raises when Redis is away into an error of ours, one line for who runs the program.

    Raises:
        RedisUnavailable: Redis did not answer within the block, or not in time.
    """
    try:
        yield
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise RedisUnavailable(f"Redis does not answer: {error}") from error


async def require_safe(client: Client) -> None:
    """Refuse a Redis that may evict keys or spreads them over a cluster.

    Raises:
        RedisUnsafe: it is a Cluster, a replica, or evicts keys when memory is full.
        RedisUnavailable: it does not answer, or not yet for anything but INFO.
    """
    try:
        with answering():
            info: dict[str, Any] = await client.info("everything")
    except redis.exceptions.RedisError as error:
        raise RedisUnsafe(f"Redis refuses INFO, which the check at start needs: {error}") from error
    if int(info.get("loading", 0)):
        raise RedisUnavailable("Redis has just been started and is still loading its data")
    if int(info.get("cluster_enabled", 0)):
        raise RedisUnsafe("Redis runs as a Cluster; the state of a pipeline needs one primary (cluster-enabled no)")
    if info.get("role") not in {None, "master"}:
        raise RedisUnsafe("Redis is a replica; HEADRACE_REDIS_URL must name the primary")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise RedisUnsafe(
            f"Redis has maxmemory-policy {policy}, which drops state when memory is full; it must be noeviction"
        )


async def watch_safety(client: Client, every_s: float = SAFETY_CHECK_S) -> NoReturn:
    """Until Redis is changed, or replaced, into one that does not keep state; while it does not answer nothing is said.

    Args:
        client: the connection.
        every_s: how often to look, in seconds.

    Raises:
        RedisUnsafe: as `require_safe`.
    """
    while True:
        await asyncio.sleep(every_s)
        with suppress(RedisUnavailable):
            await require_safe(client)
