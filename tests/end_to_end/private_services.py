"""The six services of one deployment on ports of their own, beside whatever else runs on the stack that is up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from deploy.local import Layout, Ports
from deploy.local.services import base_environment
from headrace.demo.errors import DemoError

READY_S = 90.0
STOP_S = 40.0


class PrivateServices:
    """Six services as child processes: a stack for a demonstration that shares Kafka, Redis and Triton.

    Args:
        directory: for logs.
        settings: by variable, for all six.
        layout: whose keys, artifacts and state they have.
        root: the clone that they run from.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        layout: Layout | None = None,
        root: Path | None = None,
    ) -> None:
        self.layout = layout or Layout()
        self.root = root or self.layout.root
        self._directory = directory
        self._settings = dict(settings or {})
        names = list(Ports().operations)
        free = _free_ports(len(names) + 1)
        self.ports = Ports(gateway=free[-1], operations=dict(zip(names, free, strict=False)))
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def gateway(self) -> str:
        """Address of the gateway's gRPC server."""
        return f"127.0.0.1:{self.ports.gateway}"

    def start_infrastructure(self) -> None:
        """Nothing: it is up."""

    def start_services(self, environment: Mapping[str, str]) -> None:
        """Create the topics, start the six services and wait until they are ready.

        Raises:
            DemoError: a service has ended or is not ready in time.
        """
        settings = {
            **os.environ,
            **base_environment(self.layout, self.ports),
            "HEADRACE_GATEWAY_GRPC_PORT": str(self.ports.gateway),
            "PYTHONPATH": str(self.root / "services"),
            **self._settings,
            **environment,
        }
        subprocess.run(
            [sys.executable, "-m", "headrace.cli", "topics", "create"], cwd=self.root, env=settings, check=True
        )
        for name in self.ports.operations:
            command = [sys.executable, "-m", "headrace.cli", "run", name]
            with (self._directory / f"{name}.log").open("wb") as log:
                self._running[name] = subprocess.Popen(
                    command, cwd=self.root, env=settings, stdout=log, stderr=subprocess.STDOUT
                )
        deadline = time.monotonic() + READY_S
        for name, port in self.ports.operations.items():
            while not _ready(port):
                if self._running[name].poll() is not None or time.monotonic() > deadline:
                    raise DemoError(f"{name} is not ready:\n{self.log(name)[-3000:]}")
                time.sleep(0.1)

    def log(self, name: str) -> str:
        """What a service has logged."""
        return (self._directory / f"{name}.log").read_text()

    def ended(self) -> list[str]:
        """Services that have ended."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def stop(self) -> None:
        """Stop the services and wait until they have ended."""
        for process in self._running.values():
            process.terminate()
        deadline = time.monotonic() + STOP_S
        for process in self._running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_ports(count: int) -> list[int]:
    with ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
