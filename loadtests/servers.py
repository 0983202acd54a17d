"""A Kafka broker and a Redis of a benchmark's own: free loopback ports, fresh data, gone when the block is left."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local import Layout, Ports, kafka_broker, redis_server
from deploy.local.downloads import fetch
from loadtests.machine import on

READY_S = 90.0
STOP_S = 20.0
BENCH = Layout().root / ".run" / "bench"


class ServersError(Exception):
    """A server does not start; the message has the end of its log."""


@dataclass(frozen=True)
class Servers:
    """Where the servers are.

    Attributes:
        bootstrap: the broker, host:port.
        redis_url: Redis, database 0.
        redis_pid: its process id.
        directory: for files of the run; removed with it.
    """

    bootstrap: str
    redis_url: str
    redis_pid: int
    directory: Path


@contextmanager
def servers(cores: frozenset[int], *, kafka: bool = True) -> Iterator[Servers]:
    """A broker and a Redis, configured as the local stack configures them.

    Args:
        cores: what they may run on.
        kafka: whether a broker is needed too.

    Raises:
        ServersError: one is not ready in time.
    """
    BENCH.mkdir(parents=True, exist_ok=True)
    layout = Layout(run=Path(tempfile.mkdtemp(prefix="servers-", dir=BENCH)))
    broker, controller, redis = free_ports(3)
    ports = Ports(kafka=broker, kafka_controller=controller, redis=redis)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, layout.run, ignore_errors=True)
        layout.make_directories()
        commands: dict[str, tuple[list[str], Callable[[], bool]]] = {
            "redis": (redis_server.prepare(layout, ports), lambda: redis_server.answers(redis))
        }
        if kafka:
            command = kafka_broker.prepare(layout, ports, fetch(layout, print), print)
            commands["kafka"] = (command, lambda: kafka_broker.answers(broker))
        pids = {
            name: stack.enter_context(_running(name, command, answers, layout.logs / f"{name}.log", cores)).pid
            for name, (command, answers) in commands.items()
        }
        yield Servers(f"127.0.0.1:{broker}", f"redis://127.0.0.1:{redis}/0", pids["redis"], layout.run)


@contextmanager
def _running(
    name: str, command: Sequence[str], answers: Callable[[], bool], log: Path, cores: frozenset[int]
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, on(cores):
        process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + READY_S
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServersError(f"{name} does not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    """Loopback ports that were free a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
