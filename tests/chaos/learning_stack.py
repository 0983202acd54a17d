"""The services of one deployment as processes that are started again when they end, and faults for them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from deploy.local import Stack
from deploy.local.services import base_environment
from deploy.local.triton_server import http_ok
from tests.chaos.gateway_faults import Deck, back
from tests.chaos.mlflow_process import MlflowWorker
from tests.integration.features.deployment import Worker
from tests.integration.gateway.deployment import eventually

READY_S = 600.0
STOP_S = 60.0
PAUSE_S = (0.2, 3.0)
POLL_S = 0.05
LAST_LINES = 12
MISCONFIGURED = 2

FAULTS = [
    "outcomes",
    "outcomes",
    "learner",
    "learner",
    "rollout",
    "triton",
    "outcomes learner",
    "learner rollout",
    "outcomes learner rollout triton",
    "learner, and again as it starts",
    "outcomes, and again as it starts",
]
"""What is killed, all at the same moment."""

REGISTRY_FAULTS = ["mlflow", "rollout mlflow"]
"""The same where MLflow is a server; else its SQLite file is a part of rollout."""


class LoopServices:
    """The services of one deployment, each started again when it ends.

    Args:
        stack: private; its ports are the services'.
        directory: for logs, artifacts and state.
        settings: by variable.
        commands: of services that are not started as always.
        registry: directory of an MLflow server that is one of them; without it rollout has the database.
    """

    def __init__(
        self,
        stack: Stack,
        directory: Path,
        settings: Mapping[str, str],
        commands: Mapping[str, Sequence[str]] | None = None,
        *,
        registry: Path | None = None,
    ) -> None:
        # The monitor is not started: it learns nothing that others wait for.
        free = stack.ports.operations["monitor"]
        self._health = {name: (port, "/readyz") for name, port in stack.ports.operations.items()}
        if registry is not None:
            settings = {**settings, "HEADRACE_ROLLOUT_MLFLOW_URI": f"http://127.0.0.1:{free}"}
        self.artifacts = directory / "artifacts"
        self.state = directory / "state"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
            **base_environment(stack.layout, stack.ports),
            "HEADRACE_GATEWAY_GRPC_PORT": str(stack.ports.gateway),
            "HEADRACE_ARTIFACTS": str(self.artifacts),
            "HEADRACE_STATE_DIR": str(self.state),
            **settings,
        }
        self.public_key = Path(self.environment["HEADRACE_SIGNING_PUBLIC_KEY"])
        commands = {name: ("headrace.cli", "run", name) for name in stack.ports.operations} | dict(commands or {})
        self.workers: dict[str, Worker] = {
            name: Worker([sys.executable, "-m", *command], self.environment, directory / f"{name}.log")
            for name, command in commands.items()
            if name != "monitor"
        }
        if registry is not None:
            self.workers["mlflow"] = MlflowWorker(registry, free, directory / "mlflow.log")
            self._health["mlflow"] = free, "/health"
        self.exits: Counter[str] = Counter()

    async def start(self) -> None:
        """Create the topics and start the services."""
        command = [sys.executable, "-m", "headrace.cli", "topics", "create"]
        create = partial(subprocess.run, command, env=self.environment, capture_output=True, text=True, timeout=READY_S)
        created = await asyncio.to_thread(create, check=False)
        assert created.returncode == 0, created.stderr
        for worker in self.workers.values():
            await worker.start()

    async def all_ready(self) -> None:
        """Wait until all services are ready."""
        for name in self.workers:
            await self.ready(name)

    async def ready(self, name: str) -> None:
        """Wait until a service says that it is ready."""

        async def answers() -> bool:
            return await asyncio.to_thread(http_ok, *self._health[name])

        await eventually(answers, f"{name} is ready", READY_S, every_s=0.1)

    async def supervise(self) -> None:
        """Start services again that have ended, until cancelled.

        Raises:
            AssertionError: one has ended in a way that no restart helps.
        """
        while True:
            for name, worker in self.workers.items():
                if worker.ended and worker.process is not None:
                    status = worker.process.returncode
                    assert status != MISCONFIGURED, f"{name} is misconfigured"
                    self.exits[f"{name} {status}"] += 1
                    await worker.start()
            await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        """Stop the services."""
        running = [worker for worker in self.workers.values() if not worker.ended]
        for worker in running:
            worker.send(signal.SIGTERM)
        for worker in running:
            try:
                await worker.wait(STOP_S)
            except TimeoutError:
                worker.send(signal.SIGKILL)
                await worker.wait()

    def kill(self, name: str) -> None:
        """Kill -9 a service; nothing where it has just ended."""
        worker = self.workers[name]
        if not worker.ended:
            worker.send(signal.SIGKILL)

    def last_words(self) -> str:
        """The ends of the logs, and of what else was logged at WARNING and above."""
        parts = []
        for name, worker in self.workers.items():
            if worker.log.exists():
                lines = worker.text().splitlines()
                worse = [line for line in lines[:-LAST_LINES] if '"level": "info"' not in line][-LAST_LINES:]
                parts += [f"== {name} (starts: {worker.starts})", *worse, "-- the end:", *lines[-LAST_LINES:]]
        return "\n".join(parts)

    @property
    def tracebacks(self) -> list[str]:
        """Services that wrote a stack trace."""
        return [name for name, worker in self.workers.items() if "Traceback (most" in worker.text()]


class LoopFaults:
    """Kills parts of the loop, one kind of fault after the other, and waits until all of it is back.

    Args:
        stack: has Triton.
        services: the others.
        seed: decides the order and the pauses.
        kinds: what is killed.
    """

    def __init__(self, stack: Stack, services: LoopServices, seed: int, kinds: Sequence[str] = FAULTS) -> None:
        self._stack = stack
        self._services = services
        self.deck = Deck(list(kinds), seed)
        self.kills: Counter[str] = Counter()

    async def go_on(self) -> None:
        """Strike until cancelled."""
        while True:
            await self.strike()

    async def strike(self) -> None:
        """The next fault, until what it killed is back."""
        kind = self.deck.next()
        names, again, _ = kind.partition(", and again")
        victims = names.split()
        await asyncio.sleep(self.deck.random.uniform(*PAUSE_S))
        before = await asyncio.to_thread(self._stack.process_id, "triton") if "triton" in victims else 0
        for name in victims:
            self.kills[name] += 1
            if name == "triton":
                os.kill(before, signal.SIGKILL)
            else:
                self._services.kill(name)
        self.deck.done[kind] += 1
        if again:
            await asyncio.sleep(self.deck.random.uniform(*PAUSE_S))
            self._services.kill(names)
            self.kills[names] += 1
        for name in victims:
            if name == "triton":
                await back(self._stack, name, before, READY_S)
            else:
                await self._services.ready(name)
