"""A real MLflow server as the compose stack has it, in the environment of `requirements/mlflow-server.txt`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from loadtests.environment import MLFLOW, control_python

READY_S = 180.0
STOP_S = 30.0


def command(directory: Path, port: int) -> list[str]:
    """Runs a server on a loopback port, with its database and its artifacts in a directory."""
    return [
        *(str(control_python(MLFLOW)), "-m", "mlflow", "server"),
        *("--host=127.0.0.1", f"--port={port}", "--workers=1"),
        f"--backend-store-uri=sqlite:///{directory / 'mlflow.db'}",
        f"--artifacts-destination={directory / 'artifacts'}",
    ]


def environment() -> dict[str, str]:
    """That of a server: nothing of this project, nothing sent to anybody, and no jobs."""
    own = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | own


class MlflowServer:
    """One server on a loopback port of its own, which is the same after a restart.

    Args:
        directory: for its database, its artifacts and its log.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What `HEADRACE_ROLLOUT_MLFLOW_URI` names."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def files(self) -> set[str]:
        """Runs whose model file the server holds."""
        return {path.parent.parent.parent.name for path in (self._directory / "artifacts").rglob("model.onnx")}

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._directory / "server.log").open("ab") as log:
            # A group of its own: the server is a parent with a worker.
            self._process = subprocess.Popen(
                command(self._directory, self._port),
                cwd=self._directory,
                env=environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_S
        while not self._answers():
            assert self._process.poll() is None, f"the server ended:\n{self._log()}"
            assert time.monotonic() < deadline, f"the server does not answer:\n{self._log()}"
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill -9 the server and its worker; nothing where it does not run."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Suspend the server and its worker: connections are taken, and nothing is answered."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def _end(self, with_signal: signal.Signals) -> None:
        if self._process is not None:
            self._send(with_signal)
            self._process.wait(STOP_S)
            self._process = None

    def _send(self, what: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, what)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _log(self) -> str:
        return (self._directory / "server.log").read_text()[-3000:]
