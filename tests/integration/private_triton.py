"""A Triton of a test's own, on ports of its own, to kill and to suspend."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from deploy.local.downloads import fetch
from deploy.local.layout import Layout, Ports
from deploy.local.triton_server import answers, prepare, remove_shared_memory

STOPPED_S = 10.0


class PrivateTriton:
    """One server. What it wrote is in the directory, its output in `log`.

    Args:
        directory: for its models and its log.
    """

    def __init__(self, directory: Path) -> None:
        with ExitStack() as opened:
            sockets = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            numbers = [one.getsockname()[1] for one in sockets]
        self._ports = Ports(triton_http=numbers[0], triton_grpc=numbers[1], triton_metrics=numbers[2])
        self._layout = Layout(run=directory)
        self._layout.make_directories()
        self.url = f"127.0.0.1:{self._ports.triton_grpc}"
        self._command, self._environment = prepare(self._layout, self._ports, fetch(self._layout, lambda line: None))
        self.log = directory / "triton.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it answers a little later."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        """Whether it says so itself."""
        return answers(self._ports.triton_http)

    def suspend(self) -> None:
        """SIGSTOP: its connections stay open, and nothing answers.

        The server alone: its Python backend may crash when its own processes were suspended too.
        """
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        # A thread that waits for a processor stops when it gets one.
        threads = Path(f"/proc/{self._process.pid}/task")
        deadline = time.monotonic() + STOPPED_S
        while any(one.read_text().rpartition(")")[2].split()[0] != "T" for one in threads.glob("*/stat")):
            assert time.monotonic() < deadline, "Triton is not suspended"
            time.sleep(0.001)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """kill -9 it, its backend processes with it."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            self._process = None
            remove_shared_memory(self._layout)
