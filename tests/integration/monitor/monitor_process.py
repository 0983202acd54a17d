"""A monitor in a process of its own, that can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

START_S = 30.0
POLL_S = 0.05


class MonitorProcess:
    """Started on entry; killed on exit if it still runs.

    Args:
        bootstrap: Kafka brokers.
        pipeline: file of the pipeline.
        namespace: of the deployment.
        state_dir: for the references.
    """

    def __init__(self, bootstrap: str, pipeline: Path, namespace: str, state_dir: Path) -> None:
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
            "HEADRACE_KAFKA_BOOTSTRAP": bootstrap,
            "HEADRACE_PIPELINE": str(pipeline),
            "HEADRACE_NAMESPACE": namespace,
            "HEADRACE_STATE_DIR": str(state_dir),
            "HEADRACE_MONITOR_OPS_PORT": "0",
            "HEADRACE_MONITOR_IDLE_AFTER_S": "0.5",
        }
        self._port = 0
        self.log: list[dict[str, Any]] = []

    async def __aenter__(self) -> MonitorProcess:
        self._port, self.log = 0, []
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headrace.monitor", env=self._environment, stdout=asyncio.subprocess.PIPE
        )
        self._reader = asyncio.create_task(self._read_log())
        await self.until(lambda: self._port > 0, "it logs its port")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self.signal(signal.SIGKILL)
        await self._process.wait()
        await self._reader

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Wait for the end; the exit status."""
        async with asyncio.timeout(START_S):
            return await self._process.wait()

    async def until(self, holds: Callable[[], bool], what: str, timeout_s: float = START_S) -> None:
        """Wait for a condition; fail when the process ends before."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not holds():
            assert self._process.returncode is None, f"the monitor ended before {what}: {self.log[-3:]}"
            assert asyncio.get_running_loop().time() < deadline, f"not in {timeout_s} s: {what}; {self.log[-3:]}"
            await asyncio.sleep(POLL_S)

    async def until_judged(self, topic: str, before_us: int, timeout_s: float = START_S) -> None:
        """Wait until everything is read and the watermark of a topic is at a time or beyond."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            assert self._process.returncode is None, f"the monitor ended: {self.log[-3:]}"
            shown = await self.metrics()
            at = shown.get(f'headrace_monitor_watermark_seconds{{topic="{topic}"}}', 0.0)
            if at >= before_us / 1e6 and await self.status("readyz") == 200:
                return
            assert asyncio.get_running_loop().time() < deadline, f"{topic} judged to {at} in {timeout_s} s"
            await asyncio.sleep(POLL_S)

    async def metrics(self) -> dict[str, float]:
        """What it shows to Prometheus, by series."""
        async with aiohttp.ClientSession() as session, session.get(self._url("metrics")) as response:
            lines = (await response.text()).splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}

    async def status(self, page: str) -> int:
        """HTTP status of a page of its ops server."""
        async with aiohttp.ClientSession() as session, session.get(self._url(page)) as response:
            return response.status

    def _url(self, page: str) -> str:
        return f"http://127.0.0.1:{self._port}/{page}"

    async def _read_log(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            entry = json.loads(line)
            self.log.append(entry)
            self._port = entry.get("ops_port", self._port)
