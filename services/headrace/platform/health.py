"""Whether a service is alive and ready, and why not; served over HTTP with the metrics.

`/livez` and `/readyz` answer 200 or 503 with a JSON body that says which part is at fault and why; `/metrics` is
Prometheus text.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from headrace.platform.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


class OpsServerError(OperatorError):
    """The ops server cannot listen; the message names the address."""

    # The port may be held by a process that is about to end.
    retriable = True


class State(StrEnum):
    """State of a part of a service."""

    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not_ready"


class Component:
    """A part that the service needs to be ready: "kafka", "assignment", "model"."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = State.STARTING
        self.reason = ""

    def starting(self, reason: str = "") -> None:
        """It is coming up; `reason` says what it waits for."""
        self.state, self.reason = State.STARTING, reason

    def ready(self) -> None:
        """It works."""
        self.state, self.reason = State.READY, ""

    def not_ready(self, reason: str) -> None:
        """It does not work, for a reason that a person can act on."""
        self.state, self.reason = State.NOT_READY, reason


class Heartbeat:
    """A loop that must come round within a time; if it does not, the process is not alive."""

    def __init__(self, name: str, within_s: float, clock: Callable[[], float]) -> None:
        self.name = name
        self.within_s = within_s
        self._clock = clock
        self._last: float | None = clock()

    def beat(self) -> None:
        """The loop came round."""
        self._last = self._clock()

    def suspend(self) -> None:
        """Expect nothing until the next beat: the loop has ended, or waits for something without a bound."""
        self._last = None

    @property
    def silent_s(self) -> float:
        """Seconds since the last beat; 0 while suspended."""
        return 0.0 if self._last is None else self._clock() - self._last


class Health:
    """Health of one service process.

    Args:
        service: name of the service.
        clock: monotonic seconds.
    """

    def __init__(self, service: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.service = service
        self._clock = clock
        self._components: dict[str, Component] = {}
        self._heartbeats: dict[str, Heartbeat] = {}

    def component(self, name: str) -> Component:
        """The component of that name; a new one is `starting`, which keeps the service from being ready."""
        return self._components.setdefault(name, Component(name))

    def heartbeat(self, name: str, within_s: float) -> Heartbeat:
        """Expect the loop of that name to beat at least every `within_s` seconds, beginning now."""
        beat = self._heartbeats[name] = Heartbeat(name, within_s, self._clock)
        return beat

    @property
    def ready(self) -> bool:
        """Whether all components are ready (and there is at least one)."""
        return bool(self._components) and all(one.state is State.READY for one in self._components.values())

    def ready_but_for(self, *names: str) -> bool:
        """Whether all components but those are ready: what does not need them can be used."""
        return all(one.state is State.READY for one in self._components.values() if one.name not in names)

    @property
    def alive(self) -> bool:
        """Whether no heartbeat is overdue."""
        return all(one.silent_s <= one.within_s for one in self._heartbeats.values())

    def readiness(self) -> dict[str, Any]:
        """Body of `/readyz`."""
        return {
            "service": self.service,
            "ready": self.ready,
            "components": {
                one.name: {"state": one.state.value} | ({"reason": one.reason} if one.reason else {})
                for one in self._components.values()
            },
        }

    def liveness(self) -> dict[str, Any]:
        """Body of `/livez`."""
        return {
            "service": self.service,
            "alive": self.alive,
            "heartbeats": {
                one.name: {"silent_s": round(one.silent_s, 3), "within_s": one.within_s}
                for one in self._heartbeats.values()
            },
        }


async def own_metrics() -> bytes:
    """The metrics of this process, as Prometheus text."""
    return generate_latest()


@asynccontextmanager
async def ops_server(
    health: Health, host: str, port: int, *, metrics: Callable[[], Awaitable[bytes]] = own_metrics
) -> AsyncIterator[int]:
    """Serve `/livez`, `/readyz` and `/metrics` inside the block.

    Args:
        health: what to report.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        metrics: gives the page to serve, as Prometheus text.

    Yields:
        The port that it listens on.

    Raises:
        OpsServerError: the address cannot be listened on.
    """

    async def livez(_: web.Request) -> web.Response:
        return web.json_response(health.liveness(), status=200 if health.alive else 503)

    async def readyz(_: web.Request) -> web.Response:
        return web.json_response(health.readiness(), status=200 if health.ready else 503)

    async def metrics_page(_: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics_page)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise OpsServerError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
