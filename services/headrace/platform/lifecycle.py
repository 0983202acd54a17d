"""The main function of every service: start, run, drain, stop, each with an end.

Exit status: 0 after a stop that was asked for, 1 after a failure (the supervisor restarts it), 2 when a restart would
not help: a setting is wrong, or what it meets outside is (an `OperatorError` that is not retriable).

A failure that a person can put right is one line of the log and `error: …` on standard error, without a stack trace
(`HEADRACE_LOG_LEVEL=debug` shows it); any other has its stack trace.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Generic, NoReturn, Protocol, TypeVar, runtime_checkable

import uvloop

from headrace.pipeline import DefinitionError
from headrace.platform.errors import OperatorError
from headrace.platform.health import Health, ops_server, own_metrics
from headrace.platform.logging import configure_logging, get_logger
from headrace.platform.settings import Settings, SettingsError
from headrace.platform.telemetry import configure_telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType
    from typing import Any

S = TypeVar("S", bound=Settings)

STOPPED = 0
FAILED = 1
MISCONFIGURED = 2
GRACE_S = 1.0


class Deadline:
    """A point in monotonic time that everything under way shares."""

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.at - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining() <= 0.0


class Service(Protocol):
    """What `run_service` runs. A service that has something to finish first is a `DrainingService`."""

    async def start(self) -> None:
        """Connect and restore. When it returns, the service is up. Cancelled if a stop is asked for meanwhile."""

    async def run(self) -> None:
        """Work until cancelled, or raise when it cannot go on. Returning by itself counts as a failure."""

    async def stop(self, deadline: Deadline) -> None:
        """Close what `start` opened, also when `start` failed half-way or `run` failed; `run` has ended by now."""


@runtime_checkable
class DrainingService(Service, Protocol):
    """A service that finishes what it has taken in before `run` is cancelled."""

    async def drain(self, deadline: Deadline) -> None:
        """Take in nothing new and finish what is under way; `run` still works. Not called after a failure."""


def run_service(
    settings_cls: type[S],
    build: Callable[[S, Health], Service],
    *,
    metrics: Callable[[], Awaitable[bytes]] = own_metrics,
) -> NoReturn:
    """Run a service and end the process.

    Settings, logging, telemetry, the ops server and the event loop (uvloop) are set up here. SIGTERM and SIGINT drain
    and stop it within `shutdown_timeout_s`; if that is not enough, or the event loop hangs, the process ends anyhow.

    Args:
        settings_cls: the settings of the service.
        build: wires the service from its settings; it connects to nothing yet. Runs inside the event loop. Components
            that it registers with the health object must become ready for `/readyz` to say so.
        metrics: gives the page of `/metrics`, for a process that speaks for others too.
    """
    try:
        settings = settings_cls.load()
    except SettingsError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {line}\n")
        sys.exit(MISCONFIGURED)
    configure_logging(settings.service, settings.log_level)
    shut_telemetry_down = configure_telemetry(settings.service, settings.otlp_endpoint)
    process = _Process(settings, build, metrics)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(process.main())
    except BaseException as error:  # noqa: BLE001 (whatever it is, it is logged and ends the process)
        status = _report(error)
    shut_telemetry_down()
    sys.stdout.flush()
    sys.exit(status)


class _Process(Generic[S]):
    def __init__(
        self, settings: S, build: Callable[[S, Health], Service], metrics: Callable[[], Awaitable[bytes]]
    ) -> None:
        self._settings = settings
        self._build = build
        self._metrics = metrics
        self._log = get_logger()
        self._stop_asked = asyncio.Event()
        self._interrupts = 0
        self._running: asyncio.Task[None] | None = None
        self._last_resort: threading.Timer | None = None

    async def main(self) -> int:
        settings = self._settings
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._unhandled)
        self._listen_to_signals(loop)
        health = Health(settings.service)
        lifecycle = health.component("service")
        try:
            async with ops_server(health, settings.ops_host, settings.ops_port, metrics=self._metrics) as port:
                self._log.info("service starting", ops_host=settings.ops_host, ops_port=port, pid=os.getpid())
                service = self._build(settings, health)
                failure = await self._start_and_run(service, lifecycle.ready)
                lifecycle.not_ready("stopping")
                return await self._end(service, failure)
        except Exception as error:  # noqa: BLE001 (logged, and ends the process)
            return _report(error)

    async def _start_and_run(self, service: Service, started: Callable[[], None]) -> BaseException | None:
        """Until a stop is asked for (None) or it fails."""
        asked = asyncio.create_task(self._stop_asked.wait(), name="stop-asked")
        try:
            for name, step in (("start", service.start), ("run", service.run)):
                task = asyncio.create_task(step(), name=name)
                await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    if failure := _failure(task):
                        return failure
                    if name == "run":
                        return None if asked.done() else RuntimeError("run() returned though nobody asked for a stop")
                    self._log.info("service started")
                    started()
                    continue
                self._running = task
                return None
        finally:
            asked.cancel()
        return None

    async def _end(self, service: Service, failure: BaseException | None) -> int:
        deadline = Deadline(self._settings.shutdown_timeout_s)
        self._end_the_process_after(self._settings.shutdown_timeout_s + GRACE_S)
        status = STOPPED if failure is None else _report(failure)
        try:
            async with asyncio.timeout(deadline.remaining()):
                task = self._running
                if task is not None:
                    if task.get_name() == "run" and failure is None and isinstance(service, DrainingService):
                        await service.drain(deadline)
                    task.cancel()
                    await asyncio.wait({task})
                    if late := _failure(task):
                        status = _report(late, "service failed while stopping")
                await service.stop(deadline)
        except TimeoutError:
            self._log.critical("service not stopped in time", timeout_s=self._settings.shutdown_timeout_s)
            status = FAILED
        except Exception as error:  # noqa: BLE001 (logged, and ends the process)
            status = _report(error, "service failed while stopping")
        self._log.info("service stopped", status=status)
        return status

    def _listen_to_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not loop.add_signal_handler: its handlers do not run while the loop hangs, which is when they are needed most.
        def asked(number: int, _: FrameType | None) -> None:
            self._interrupts += number == signal.SIGINT
            if self._interrupts > 1:
                os._exit(128 + number)
            self._end_the_process_after(self._settings.shutdown_timeout_s + GRACE_S)
            loop.call_soon_threadsafe(self._stop_asked.set)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, asked)

    def _end_the_process_after(self, seconds: float) -> None:
        """Whatever hangs: a task that swallows its cancellation, a thread that is waited for, the loop itself."""
        if self._last_resort is not None:
            return

        def end() -> None:
            self._log.critical("process ended: it did not stop in time", timeout_s=self._settings.shutdown_timeout_s)
            sys.stdout.flush()
            os._exit(FAILED)

        self._last_resort = threading.Timer(seconds, end)
        self._last_resort.daemon = True
        self._last_resort.start()

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._log.error(str(context.get("message", "unhandled error")), exc_info=context.get("exception"))


def _failure(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


def _report(failure: BaseException, event: str = "service failed") -> int:
    """Log a failure, and tell the person who runs the service what can be put right. Returns the exit status."""
    causes = _causes(failure)
    known = [cause for cause in causes if isinstance(cause, OperatorError | DefinitionError)]
    if len(known) < len(causes):
        get_logger().critical(event, exc_info=failure)
        return FAILED
    get_logger().debug("where it failed", exc_info=failure)
    for cause in known:
        get_logger().critical(event, error_type=type(cause).__name__, reason=str(cause))
        for line in str(cause).splitlines():
            sys.stderr.write(f"error: {line}\n")
    retriable = all(isinstance(cause, OperatorError) and cause.retriable for cause in known)
    return FAILED if retriable else MISCONFIGURED


def _causes(failure: BaseException) -> list[BaseException]:
    """What failed: the exceptions in a group of a `TaskGroup`, or the failure itself. Of equal ones, the first."""
    if not isinstance(failure, BaseExceptionGroup):
        return [failure]
    causes: dict[tuple[type[BaseException], str], BaseException] = {}
    for one in failure.exceptions:
        for cause in _causes(one):
            causes.setdefault((type(cause), str(cause)), cause)
    return list(causes.values())
