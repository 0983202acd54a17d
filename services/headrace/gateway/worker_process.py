"""One of several gateway processes on a port, as seen by the one that starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import aiohttp

from headrace.platform.logging import get_logger

ASK_TIMEOUT_S = 2.0


class WorkerProcess:
    """A gateway process with a name, an ops port and, as long as it runs, a process id.

    Args:
        number: its number in the group.
        name: its instance name.
        ops_port: loopback port of its `/livez`, `/readyz` and `/metrics`.
        process: the started process.
    """

    def __init__(self, number: int, name: str, ops_port: int, process: asyncio.subprocess.Process) -> None:
        self.number = number
        self.name = name
        self.was_ready = False
        self._url = f"http://127.0.0.1:{ops_port}"
        self._process = process
        self._log = get_logger(process=name, pid=process.pid)

    @classmethod
    async def start(cls, number: int, name: str, ops_port: int, environment: Mapping[str, str]) -> WorkerProcess:
        """Start it. Its output goes where this process's goes, and it ends when this process does.

        Args:
            number: its number in the group.
            name: its instance name.
            ops_port: a free loopback port.
            environment: what differs from this process's own.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headrace.gateway",
            env=os.environ | environment,
            # Nothing is ever written to it: that it closes tells the other end that this process is gone.
            stdin=asyncio.subprocess.PIPE,
        )
        started = cls(number, name, ops_port, process)
        started._log.info("gateway process started")
        return started

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    async def ended(self) -> int:
        """Wait for its end; returns the exit status."""
        return await self._process.wait()

    def stop(self) -> None:
        """Ask it to finish what it has taken in, and to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    async def readiness(self, session: aiohttp.ClientSession) -> str:
        """Why it is not ready; empty where it is."""
        body = await self._ask(session, "/readyz")
        if body is None:
            return "does not answer"
        waits = [
            f"{name}: {one.get('reason') or one['state']}"
            for name, one in body["components"].items()
            if one["state"] != "ready"
        ]
        self.was_ready |= not waits
        return "; ".join(waits)

    async def is_alive(self, session: aiohttp.ClientSession) -> bool:
        """Whether its loops come round."""
        body = await self._ask(session, "/livez")
        return body is not None and bool(body["alive"])

    async def metrics(self, session: aiohttp.ClientSession) -> str | None:
        """Its metrics, as Prometheus text; None where it does not answer."""
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(f"{self._url}/metrics", timeout=_TIMEOUT) as answer:
                return await answer.text()
        return None

    async def _ask(self, session: aiohttp.ClientSession, path: str) -> dict[str, Any] | None:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(f"{self._url}{path}", timeout=_TIMEOUT) as answer:
                body: dict[str, Any] = await answer.json()
                return body
        return None

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


_TIMEOUT = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)


def end_with_parent() -> None:
    """Have this process end, as by SIGTERM, when the one that started it is gone, however that came about."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
