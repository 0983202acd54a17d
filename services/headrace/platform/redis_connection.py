"""Lean connections to Redis for the hot path: commands out, replies in, one round trip.

The client of redis-py spends more on each argument of a large command than Redis does. Here hiredis packs and parses,
and there is nothing else: no retries, no health checks, no decoding. Faults are those of redis-py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
import redis.asyncio
import redis.exceptions
from redis.asyncio.connection import parse_url

from headrace.platform.redis import CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S


class Packed(bytes):
    """A command as it is sent, for one that is sent often. Made by `packed`."""

    __slots__ = ()


Command = Sequence[str | bytes | int] | Packed
"""Name and arguments."""

MOST_CONNECTIONS = 8
_PENDING = object()
_pack = cast("Callable[[tuple[str | bytes | int, ...]], bytes]", hiredis.pack_command)  # declared for one part alone
_ERRORS: dict[str, type[redis.exceptions.RedisError]] = {
    "LOADING": redis.exceptions.BusyLoadingError,
    "NOAUTH": redis.exceptions.AuthenticationError,
    "NOSCRIPT": redis.exceptions.NoScriptError,
    "READONLY": redis.exceptions.ReadOnlyError,
}


def packed(*command: str | bytes | int) -> Packed:
    """A command as it is sent: its name and arguments."""
    return Packed(_pack(command))


_MULTI, _EXEC = packed("MULTI"), packed("EXEC")


class RedisConnections:
    """A few connections to one Redis. Nothing is sent before the first call; close them with `aclose`.

    A call takes a free connection or opens one. One whose reply is outstanding when its caller is cancelled, or when
    the time is up, is closed: the reply would be taken for that of the next command.
    """

    def __init__(self, url: str, *, reply_timeout_s: float = REPLY_TIMEOUT_S, most: int = MOST_CONNECTIONS) -> None:
        """Args:
        url: `redis://host:port/db`, `rediss://` for TLS, `unix://` for a socket.
        reply_timeout_s: how long the replies to a call may take, in seconds.
        most: how many connections there may be; further calls wait for one.
        """
        self._options: dict[str, Any] = dict(parse_url(url))
        self._reply_timeout_s = reply_timeout_s
        self._places = asyncio.Semaphore(most)
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    async def execute(self, *commands: Command) -> list[Any]:
        """Send commands together; their replies, in order. Values are bytes, absent ones None.

        Raises:
            redis.exceptions.ResponseError: Redis refused one of them; the others took effect.
            redis.exceptions.ConnectionError: Redis is not there or went away; what took effect is not known.
            redis.exceptions.TimeoutError: Redis did not answer in time; what took effect is not known.
        """
        return _checked(await self._exchange(commands))

    async def transaction(self, *commands: Command) -> list[Any]:
        """Send commands that take effect at one moment; their replies, in order.

        Raises:
            redis.exceptions.ResponseError: Redis refused one of them.
            redis.exceptions.ConnectionError: Redis is not there or went away; what took effect is not known.
            redis.exceptions.TimeoutError: Redis did not answer in time; what took effect is not known.
        """
        return _checked(_checked(await self._exchange((_MULTI, *commands, _EXEC)))[-1])

    async def aclose(self) -> None:
        """Close all connections. Calls that are under way fail."""
        for connection in list(self._open):
            connection.close()
        self._idle.clear()

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        async with self._places:
            connection = self._idle.pop() if self._idle else None
            if connection is None or connection.closed:
                connection = await self._connect()
            try:
                replies = await connection.exchange(commands, self._reply_timeout_s)
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
            return replies

    async def _connect(self) -> _Connection:
        options = self._options
        loop = asyncio.get_running_loop()
        where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"

        def build() -> _Connection:
            return _Connection(loop, self._open)

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if "path" in options:
                    _, connection = await loop.create_unix_connection(build, options["path"])
                else:
                    _, connection = await loop.create_connection(
                        build, options.get("host", "localhost"), options.get("port", 6379), ssl=_tls(options)
                    )
        except OSError as error:  # the time being up is one too
            reason = str(error) or type(error).__name__
            raise redis.exceptions.ConnectionError(f"no connection to Redis at {where}: {reason}") from error
        try:
            greeting = _greeting(options)
            for reply in await connection.exchange(greeting, CONNECT_TIMEOUT_S) if greeting else ():
                if isinstance(reply, redis.exceptions.RedisError):
                    raise redis.exceptions.AuthenticationError(f"Redis at {where} refuses the connection: {reply}")
        except BaseException:
            connection.close()
            raise
        return connection


class _Connection(asyncio.Protocol):
    """One connection with at most one exchange under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, opened: set[_Connection]) -> None:
        self._loop = loop
        self._opened = opened
        self._reader = hiredis.Reader(
            protocolError=redis.exceptions.InvalidResponse, replyError=_error, notEnoughData=_PENDING
        )
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[list[Any]] | None = None
        self._expected = 0
        self._replies: list[Any] = []
        self._timeout_s = self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.closed = False

    async def exchange(self, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        """Send commands and wait for their replies, errors among them."""
        if self.closed or self._transport is None:
            raise redis.exceptions.ConnectionError("Redis closed the connection")
        answer = self._answer = self._loop.create_future()
        self._expected, self._replies = len(commands), []
        self._timeout_s, self._deadline = timeout_s, self._loop.time() + timeout_s
        # One timer for many exchanges: it is moved on when it goes off, not when one of them ends.
        if self._timer is None or self._timer.when() > self._deadline:
            self._expire_at(self._deadline)
        self._transport.write(b"".join([c if type(c) is Packed else _pack(tuple(c)) for c in commands]))
        try:
            replies: list[Any] = await answer
            return replies
        finally:
            self._answer = None

    def close(self) -> None:
        """Close at once; what waits for a reply fails."""
        self._ended()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._opened.add(self)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._answer is None or self._answer.done():
            self.close()  # nothing was asked
            return
        try:
            self._reader.feed(data)
            while len(self._replies) < self._expected:
                reply = self._reader.gets()
                if reply is _PENDING:
                    return
                self._replies.append(reply)
        except redis.exceptions.InvalidResponse as error:
            self._fail(redis.exceptions.ConnectionError(f"Redis answered nonsense: {error}"))
            return
        self._answer.set_result(self._replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._ended()
        self._fail(redis.exceptions.ConnectionError(f"Redis closed the connection{f': {exc}' if exc else ''}"))

    def _expire_at(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._answer is None or self._answer.done():
            return
        if self._loop.time() < self._deadline:
            self._expire_at(self._deadline)
        else:
            self._fail(redis.exceptions.TimeoutError(f"Redis did not answer within {self._timeout_s:g} s"))

    def _ended(self) -> None:
        self.closed = True
        self._opened.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _checked(replies: list[Any]) -> list[Any]:
    """Replies among which there is no error."""
    for reply in replies:
        if isinstance(reply, redis.exceptions.RedisError):
            raise reply
    return replies


def _error(text: str) -> redis.exceptions.RedisError:
    return _ERRORS.get(text.partition(" ")[0], redis.exceptions.ResponseError)(text)


def _greeting(options: dict[str, Any]) -> list[Command]:
    commands: list[Command] = []
    if options.get("password"):
        user = [options["username"]] if options.get("username") else []
        commands.append(("AUTH", *user, options["password"]))
    if options.get("db"):
        commands.append(("SELECT", options["db"]))
    return commands


def _tls(options: dict[str, Any]) -> Any:
    """The TLS context that redis-py makes of the URL; None without TLS."""
    build = options.get("connection_class")
    if build is not redis.asyncio.SSLConnection:
        return None
    settings = {name: value for name, value in options.items() if name.startswith("ssl_")}
    return redis.asyncio.SSLConnection(**settings).ssl_context.get()
