"""An MLflow server as a process that is killed and started again, with all that it starts itself."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.integration.features.deployment import Worker
from tests.registry.mlflow_server import command, environment


class MlflowWorker(Worker):
    """A server on a loopback port.

    Args:
        directory: for its database and its artifacts.
        port: that it has, also after a restart.
        log: file for what it says.
    """

    def __init__(self, directory: Path, port: int, log: Path) -> None:
        # A group of its own: the server is a parent with a worker.
        super().__init__(["setsid", *command(directory, port)], environment(), log)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
