"""Kafka, Redis and Triton of a benchmark's own: free loopback ports, fresh data, gone when the block is left."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local import Layout, Ports, kafka_broker, redis_server, triton_server
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
        triton_url: Triton's gRPC address, host:port; empty where none was asked for.
        triton_pid: its process id; 0 where there is none.
    """

    bootstrap: str
    redis_url: str
    redis_pid: int
    directory: Path
    triton_url: str = ""
    triton_pid: int = 0


@dataclass(frozen=True)
class _Program:
    command: list[str]
    answers: Callable[[], bool]
    environment: Mapping[str, str] | None = None


@contextmanager
def servers(cores: frozenset[int], *, kafka: bool = True, triton: bool = False) -> Iterator[Servers]:
    """A broker and a Redis, and a Triton where it is asked for, configured as the local stack configures them.

    Args:
        cores: what they may run on.
        kafka: whether a broker is needed too.
        triton: whether a Triton is needed too.

    Raises:
        ServersError: one is not ready in time.
    """
    BENCH.mkdir(parents=True, exist_ok=True)
    layout = Layout(run=Path(tempfile.mkdtemp(prefix="servers-", dir=BENCH)))
    broker, controller, redis, http, grpc, metrics = free_ports(6)
    ports = Ports(
        kafka=broker,
        kafka_controller=controller,
        redis=redis,
        triton_http=http,
        triton_grpc=grpc,
        triton_metrics=metrics,
    )
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, layout.run, ignore_errors=True)
        layout.make_directories()
        programs = {"redis": _Program(redis_server.prepare(layout, ports), lambda: redis_server.answers(redis))}
        if kafka:
            command = kafka_broker.prepare(layout, ports, fetch(layout, print), print)
            programs["kafka"] = _Program(command, lambda: kafka_broker.answers(broker))
        if triton:
            stack.callback(triton_server.remove_shared_memory, layout)
            command, environment = triton_server.prepare(layout, ports, fetch(layout, print))
            programs["triton"] = _Program(command, lambda: triton_server.answers(http), environment)
        pids = {
            name: stack.enter_context(_running(name, program, layout.logs / f"{name}.log", cores)).pid
            for name, program in programs.items()
        }
        yield Servers(
            f"127.0.0.1:{broker}",
            f"redis://127.0.0.1:{redis}/0",
            pids["redis"],
            layout.run,
            f"127.0.0.1:{grpc}" if triton else "",
            pids.get("triton", 0),
        )


@contextmanager
def _running(name: str, program: _Program, log: Path, cores: frozenset[int]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, on(cores):
        process = subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(program.environment or {})},
        )
    try:
        deadline = time.monotonic() + READY_S
        while not program.answers():
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
