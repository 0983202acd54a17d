"""Takes in calls of gRPC's asyncio server several at a time.

For each method the server asks its core for one call, waits for it through another thread, and only then asks for the
next. While the event loop works on a batch that is a call in several milliseconds, however many wait; they grow old
where nothing of ours sees them. So more calls of a method are asked for at once, in the way in which the server does
it. gRPC has no option for that: what is used here is no part of its interface, and is used only where it is the version
that this was written for. Elsewhere the server works as it does by itself. See docs/decisions/0011.

Under overload most calls must be refused, and what a refused call costs is lost to those that could be answered. So
calls may be refused here, before what they carry is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
import grpc.aio

from headrace.gateway.errors import OverloadedError
from headrace.gateway.grpc_errors import status_of
from headrace.gateway.metrics import REQUESTS

KNOWN_VERSION = "1.85.1"

AT_ONCE = 8


def is_known() -> bool:
    """Whether this version of gRPC is the one whose insides this module knows."""
    version: str = grpc.__version__
    return version == KNOWN_VERSION


class _Resolver:
    """Finds the handler of a call: there is one."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def resolve_handler(self, *_: object) -> Any:
        """The handler."""
        return self._handler


TurnAway = Callable[[Callable[[], float | None]], None]
"""Called for a call before it is read, with how long its caller still waits, in seconds, None for always; raises
`OverloadedError` where the call is to be refused."""


def _welcome(_: Callable[[], float | None]) -> None:
    """Refuses nobody."""


class CallIntake:
    """Asks for calls of some methods beside the server's own loop.

    Args:
        server: it has been started, and the methods were registered with it.
        handlers: the handler of each of these methods, by its path.
        interceptors: the interceptors that the server was given.
        at_once: calls of a method that are asked for at once, beside the server's own.
        turn_away: who refuses calls.
        refusable: paths of the methods for which it is called.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        handlers: Mapping[str, Any],
        interceptors: Iterable[Any],
        at_once: int = AT_ONCE,
        turn_away: TurnAway = _welcome,
        refusable: Iterable[str] = (),
    ) -> None:
        from grpc._cython import cygrpc  # type: ignore[attr-defined]

        self._cygrpc: Any = cygrpc
        self._core: Any = server._server  # type: ignore[attr-defined]
        self._interceptors = tuple(interceptors)
        self._turn_away = turn_away
        self._refusable = frozenset(refusable)
        self._loop = asyncio.get_running_loop()
        self._calls: set[asyncio.Task[None]] = set()
        self._asking = [
            self._loop.create_task(self._ask(path, handler), name=f"grpc-intake {path}")
            for path, handler in handlers.items()
            for _ in range(at_once)
        ]

    async def _ask(self, path: str, handler: Any) -> None:
        cygrpc, core, loop = self._cygrpc, self._core, self._loop
        method = path.encode()
        answering, turn_away = _Resolver(handler), self._turn_away if path in self._refusable else _welcome
        while core.is_running():
            try:
                state = await core._request_registered_call(method)
            except cygrpc._RequestCallError:
                # How the core says that it takes no more.
                return
            try:
                turn_away(cygrpc._ServicerContext(state, None, None, loop).time_remaining)
            except OverloadedError as error:
                ending = self._refuse(state, path, error)
            else:
                handling = cygrpc._handle_rpc(path, answering, self._interceptors, state, loop, False)
                ending = cygrpc._schedule_rpc_coro(handling, state, loop, path)
            call = loop.create_task(ending, name="rpc_task")
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _refuse(self, state: Any, path: str, error: OverloadedError) -> None:
        status = status_of(error)
        REQUESTS.labels(path.rpartition("/")[2], status.code.name).inc()
        cygrpc = self._cygrpc
        headers = cygrpc.SendInitialMetadataOperation(None, 0)
        try:
            await cygrpc._send_error_status_from_server(
                state, status.code.value[0], status.message, status.trailing_metadata(), headers, self._loop
            )
        except cygrpc.ExecuteBatchError:
            # Its caller has gone.
            return

    async def ended(self) -> None:
        """Wait until no more calls are asked for, which is when the server stops."""
        await asyncio.gather(*self._asking)
