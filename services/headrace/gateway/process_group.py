"""Several gateway processes on one port: started, watched, replaced one by one, and seen as one from outside.

This process holds the port and answers for all on the ops port; it takes no calls itself. SIGHUP replaces the processes
one after the other: a new one is ready before an old one is asked to end.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterable

import aiohttp

from headrace.gateway.port_reservation import PortReservation, reserve
from headrace.gateway.settings import GatewaySettings
from headrace.gateway.spool_directories import is_name_in_use
from headrace.gateway.worker_process import WorkerProcess
from headrace.platform.errors import OperatorError
from headrace.platform.health import Component, Health, Heartbeat, own_metrics
from headrace.platform.lifecycle import MISCONFIGURED, Deadline
from headrace.platform.logging import get_logger
from headrace.platform.merged_metrics import MergedMetrics
from headrace.platform.metrics import counter

RESTARTS = counter("gateway_process_restarts", "Processes of the gateway that ended by themselves.")
WATCH_S = 0.25
NOT_ALIVE_S = 30.0
HUNG_S = 60.0
READY_TIMEOUT_S = 120.0
PORT_PATIENCE_S = 5.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
# Of the time that this process has to stop, what its processes get.
SHARE_OF_SHUTDOWN = 0.85


class ProcessesMisconfiguredError(OperatorError):
    """A process says that a restart would not help; what is wrong is on its lines."""


class ProcessGroup:
    """Runs the processes.

    Args:
        settings: of the gateway, with more than one process.
        health: of the group: one component and one heartbeat for each place.
    """

    def __init__(self, settings: GatewaySettings, health: Health) -> None:
        self._settings = settings
        self._health = health
        self._metrics = MergedMetrics(left_out=("python_", "process_start"))
        self._ports: dict[str, PortReservation] = {}
        self._ops_ports: dict[int, socket.socket] = {}
        self._workers: set[WorkerProcess] = set()
        self._replace_all = asyncio.Event()
        self._stopping = False
        self._misconfigured = asyncio.get_running_loop().create_future()
        self._log = get_logger("process_group")
        self._places = [
            _Place(
                index,
                health.component(f"process {index}"),
                health.heartbeat(f"process {index}", NOT_ALIVE_S),
                self._start_worker,
                self._end,
            )
            for index in range(settings.processes)
        ]

    async def start(self) -> None:
        """Take the ports.

        Raises:
            PortHeldError: somebody else has it.
        """
        settings = self._settings
        self._ports["GRPC"] = await reserve(settings.grpc_host, settings.grpc_port, patience_s=PORT_PATIENCE_S)
        if settings.http_port is not None:
            self._ports["HTTP"] = await reserve(settings.http_host, settings.http_port, patience_s=PORT_PATIENCE_S)
        self._session = aiohttp.ClientSession()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._replace_all.set)
        ports = {f"{name.lower()}_port": held.port for name, held in self._ports.items()}
        self._log.info("gateway ports held", processes=settings.processes, **ports)

    async def run(self) -> None:
        """Keep the processes running until cancelled.

        Raises:
            ProcessesMisconfiguredError: none has ever been ready, and one says that a restart would not help.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                for place in self._places:
                    tasks.create_task(place.run(), name=f"process-{place.index}")
                    tasks.create_task(self._watch(place), name=f"watch-{place.index}")
                tasks.create_task(self._replacing(), name="replacing")
                await self._misconfigured
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group

    async def drain(self, deadline: Deadline) -> None:
        """Ask all processes to finish, and wait for their end."""
        self._stopping = True
        for place in self._places:
            place.stopping = True
        for worker in self._workers:
            worker.stop()
        await _ended(self._workers, deadline.remaining())

    async def stop(self, deadline: Deadline) -> None:
        """End what is left, and give the port back."""
        self._stopping = True
        # After a failure nothing has been drained.
        for worker in self._workers:
            worker.stop()
        await _ended(self._workers, deadline.remaining() * 0.8)
        for worker in self._workers:
            if worker.status is None:
                self._log.critical("gateway process killed: it did not stop in time", process=worker.name)
                worker.kill()
        await _ended(self._workers, deadline.remaining())
        if hasattr(self, "_session"):
            await self._session.close()
        for port in self._ports.values():
            port.close()
        for held in self._ops_ports.values():
            held.close()

    async def page(self) -> bytes:
        """The metrics of all processes, as Prometheus text. Of one that does not answer, the last ones."""
        await asyncio.gather(*(self._read_metrics(worker) for worker in self._workers if worker.status is None))
        self._metrics.update("group", (await own_metrics()).decode())
        return self._metrics.page()

    async def _read_metrics(self, worker: WorkerProcess) -> None:
        page = await worker.metrics(self._session)
        if page is not None and worker in self._workers:
            self._metrics.update(worker.name, page)

    async def _start_worker(self, preferred: int | None) -> WorkerProcess:
        number = self._free_number(preferred)
        name = f"{self._settings.instance}-{number}"
        if number not in self._ops_ports:
            # Bound, and kept: a process with SO_REUSEADDR, as the ops server is, listens on it, and it is given to
            # nobody else meanwhile.
            held = self._ops_ports[number] = socket.socket()
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
        ops_port = int(self._ops_ports[number].getsockname()[1])
        worker = await WorkerProcess.start(
            number,
            name,
            ops_port,
            {
                "HEADRACE_GATEWAY_INSTANCE": name,
                "HEADRACE_GATEWAY_INSTANCE_GROUP": self._settings.instance,
                "HEADRACE_GATEWAY_OPS_HOST": "127.0.0.1",
                "HEADRACE_GATEWAY_OPS_PORT": str(ops_port),
                "HEADRACE_GATEWAY_SHUTDOWN_TIMEOUT_S": f"{self._settings.shutdown_timeout_s * SHARE_OF_SHUTDOWN:.3f}",
                **{f"HEADRACE_GATEWAY_{listener}_PORT": str(held.port) for listener, held in self._ports.items()},
            },
        )
        self._workers.add(worker)
        return worker

    def _free_number(self, preferred: int | None) -> int:
        """The lowest number whose name and spool nobody uses."""
        taken = {worker.number for worker in self._workers}
        choices: Iterable[int] = itertools.count()
        for number in choices if preferred is None else itertools.chain([preferred], choices):
            name = f"{self._settings.instance}-{number}"
            if number not in taken and not is_name_in_use(self._settings.state_dir, name):
                return number
        raise AssertionError("unreachable")

    async def _end(self, worker: WorkerProcess) -> None:
        """A process has ended."""
        self._workers.discard(worker)
        self._metrics.end(worker.name)
        if (
            worker.status == MISCONFIGURED
            and not any(place.was_ready for place in self._places)
            and not self._misconfigured.done()
        ):
            self._misconfigured.set_exception(
                ProcessesMisconfiguredError(f"gateway process {worker.name} cannot run as it is configured")
            )

    async def _watch(self, place: _Place) -> None:
        """Keep a place's state as its process says, and end one that hangs."""
        while True:
            worker = place.worker
            if worker is not None and worker.status is None and not self._stopping:
                reason, alive = await asyncio.gather(worker.readiness(self._session), worker.is_alive(self._session))
                if worker is place.worker and worker.status is None:
                    place.note(reason, alive=alive)
            await asyncio.sleep(WATCH_S)

    async def _replacing(self) -> None:
        while True:
            await self._replace_all.wait()
            self._replace_all.clear()
            self._log.info("replacing the gateway processes")
            began = time.monotonic()
            for place in self._places:
                if not await place.replace(self._session, self._before_end, self._settings.shutdown_timeout_s):
                    self._log.error("the gateway processes are not all replaced", process=place.index)
                    break
            else:
                self._log.info("gateway processes replaced", seconds=round(time.monotonic() - began, 1))

    async def _before_end(self, worker: WorkerProcess) -> None:
        # Its counts are read a last time, as they stay in the totals.
        await self._read_metrics(worker)


class _Place:
    """One of the N processes: whichever runs there now."""

    def __init__(
        self,
        index: int,
        component: Component,
        heartbeat: Heartbeat,
        start: Callable[[int | None], Awaitable[WorkerProcess]],
        end: Callable[[WorkerProcess], Awaitable[None]],
    ) -> None:
        self.index = index
        self.worker: WorkerProcess | None = None
        self.was_ready = False
        self.stopping = False
        self._component = component
        self._heartbeat = heartbeat
        self._start = start
        self._end = end
        self._changing = asyncio.Lock()
        self._pause_s = 0.0
        self._log = get_logger("process_group")

    def note(self, reason: str, *, alive: bool) -> None:
        """What the process says of itself: why it is not ready, and whether its loops come round."""
        assert self.worker is not None
        name = self.worker.name
        if not reason:
            self._component.ready()
            self.was_ready = True
            self._pause_s = 0.0
        elif self.worker.was_ready:
            self._component.not_ready(f"{name}: {reason}")
        else:
            self._component.starting(f"{name}: {reason}")
        if alive:
            self._heartbeat.beat()
        elif self._heartbeat.silent_s > HUNG_S:
            self._log.critical("gateway process hangs and is killed", process=name, silent_s=HUNG_S)
            self._heartbeat.beat()
            self.worker.kill()

    async def run(self) -> None:
        """Keep a process here until cancelled."""
        async with self._changing:
            self.worker = await self._start(self.index)
        while True:
            worker = self.worker
            status = await worker.ended()
            async with self._changing:
                if worker is not self.worker:
                    continue
                await self._end(worker)
                self._component.not_ready(f"{worker.name} has ended with status {status}")
                if self.stopping:
                    await asyncio.Event().wait()
                RESTARTS.inc()
                self._log.error(
                    "gateway process ended", process=worker.name, pid=worker.pid, status=status, again_s=self._pause_s
                )
                await asyncio.sleep(self._pause_s)
                # One that was ready begins anew at once; one that never gets there, later and later.
                self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
                self._heartbeat.beat()
                # Under its old name, so that it takes up at once what the old one left.
                self.worker = await self._start(worker.number)

    async def replace(
        self,
        session: aiohttp.ClientSession,
        before_end: Callable[[WorkerProcess], Awaitable[None]],
        stop_timeout_s: float,
    ) -> bool:
        """Have a new process take over; returns whether it did.

        Args:
            session: to ask the new one whether it is ready.
            before_end: awaited before the old one is told to end.
            stop_timeout_s: seconds until the old one must have ended.
        """
        async with self._changing:
            old, fresh = self.worker, await self._start(None)
            reason = await _not_ready(fresh, session)
            if reason:
                self._log.error(
                    "the new gateway process is not ready; the old one stays",
                    process=fresh.name,
                    reason=reason,
                )
                fresh.kill()
                await fresh.ended()
                await self._end(fresh)
                return False
            self.worker = fresh
            self.note("", alive=True)
            if old is not None:
                await before_end(old)
                old.stop()
                await _ended([old], stop_timeout_s)
                old.kill()
                status = await old.ended()
                await self._end(old)
                self._log.info("gateway process replaced", process=old.name, status=status, by=fresh.name)
            return True


async def _not_ready(worker: WorkerProcess, session: aiohttp.ClientSession) -> str:
    """Wait until a process is ready; returns why it is not: in time, or because it has ended. Empty where it is."""
    ended = asyncio.create_task(worker.ended())
    deadline = time.monotonic() + READY_TIMEOUT_S
    try:
        while True:
            reason = await worker.readiness(session)
            await asyncio.wait({ended}, timeout=WATCH_S / 2 if reason else 0)
            if ended.done():
                return f"it has ended with status {ended.result()}"
            if not reason or time.monotonic() > deadline:
                return reason
    finally:
        ended.cancel()


async def _ended(workers: Iterable[WorkerProcess], timeout_s: float) -> None:
    waits = [asyncio.create_task(worker.ended()) for worker in workers]
    if waits:
        await asyncio.wait(waits, timeout=timeout_s)
        for wait in waits:
            wait.cancel()
