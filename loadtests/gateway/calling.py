"""Calling a unary method at its top rate: what answers, which load generator asks, and in which turns."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import Message

from headrace.v1.prediction_service_pb2 import PredictResponse
from loadtests.gateway import ghz
from loadtests.gateway.arguments import Options
from loadtests.gateway.delimited import write_delimited
from loadtests.gateway.deployment import Deployment
from loadtests.gateway.requests import Make, serialized
from loadtests.machine import cpu_seconds
from loadtests.processes import Process, finish, listening, module, running
from loadtests.servers import free_ports

PREDICT = "headrace.v1.PredictionService.Predict"
CONNECTIONS = 8


@dataclass(frozen=True)
class Sizes:
    """How much is measured: calls under way at once, calls of a first run, rounds of each, seconds of a run."""

    concurrency: Sequence[int]
    pilot: int
    rounds: int
    seconds: float

    @classmethod
    def of(cls, options: Options) -> Sizes:
        """For these options."""
        return cls((64,), 300, 1, 1.5) if options.quick else cls((16, 64, 256), 1000, 2, 5.0)


@dataclass
class Server:
    """Something that answers `Predict`, and what was found of it.

    Attributes:
        name: for messages.
        address: host:port.
        process: whose CPU time counts, with that of those that it has started; None where nobody's does.
        rates: answered calls a second, by calls under way, one a round.
        cpu_us: CPU time of the processes per call, one a run.
        calls: how many it was asked.
        failed: how many of these had no answer.
    """

    name: str
    address: str
    process: Process | None
    rates: dict[int, list[float]] = field(default_factory=dict)
    cpu_us: list[float] = field(default_factory=list)
    calls: int = 0
    failed: int = 0

    @property
    def top(self) -> float:
        """The best rate over all numbers of calls under way."""
        return max(statistics.median(rates) for rates in self.rates.values())

    @property
    def best_concurrency(self) -> int:
        """Where it was reached."""
        return max(self.rates, key=lambda one: statistics.median(self.rates[one]))

    @property
    def cpu(self) -> float:
        """CPU time per call, the median, in microseconds."""
        return statistics.median(self.cpu_us)

    def cpu_s(self) -> float:
        """CPU time so far."""
        return 0.0 if self.process is None else cpu_seconds(self.process.popen.pid, children=True)


@contextmanager
def echo(deployed: Deployment, answer: PredictResponse) -> Iterator[Server]:
    """The control: a bare server with answers of this size, while the block runs."""
    (port,) = free_ports(1)
    like = deployed.servers.directory / "answer.bin"
    like.write_bytes(answer.SerializeToString())
    command = module("loadtests.controls.grpc_echo", port, like)
    with running("echo", command, cores=deployed.cores, directory=deployed.servers.directory) as process:
        listening(process, port)
        yield Server("echo", f"127.0.0.1:{port}", process)


@dataclass(frozen=True)
class Access:
    """How a client gets in.

    Attributes:
        root: PEM file of the certificate authority; None is without TLS.
        headers: sent with every call, NAME=VALUE.
    """

    root: Path | None = None
    headers: tuple[str, ...] = ()


OPEN = Access()


class Caller:
    """Makes calls by ghz, or by an own client where ghz cannot be had.

    Attributes:
        name: of the load generator.
    """

    def __init__(self, deployed: Deployment, *, with_ghz: bool) -> None:
        self.name = "ghz" if with_ghz else "own client"
        self._deployed = deployed
        self._with_ghz = with_ghz

    def call(self, server: Server, requests: Sequence[Message], concurrency: int, method: str = PREDICT) -> ghz.Run:
        """Each request once, so many at a time. Counts the server's CPU time per call.

        Raises:
            ProcessFailed: nearly all calls have failed.
        """
        if server.process is not None:
            server.process.check()
        cpu = server.cpu_s()
        run = (
            self._ghz(server, requests, concurrency, method)
            if self._with_ghz
            else self._own(server, requests, concurrency, method)
        )
        server.calls += run.calls
        server.failed += run.failed
        server.cpu_us.append((server.cpu_s() - cpu) / run.calls * 1e6)
        return run

    def _ghz(self, server: Server, requests: Sequence[Message], concurrency: int, method: str) -> ghz.Run:
        return ghz.call(
            server.address,
            method,
            requests,
            concurrency=concurrency,
            connections=min(CONNECTIONS, concurrency),
            cores=self._deployed.cores,
            directory=self._deployed.servers.directory,
        )

    def _own(self, server: Server, requests: Sequence[Message], concurrency: int, method: str) -> ghz.Run:
        run, _ = call_by_own_client(self._deployed, server.address, method, serialized(requests), concurrency)
        return run


def grpc_path(method: str) -> str:
    """What a method, `package.Service.Method`, is called on the wire."""
    service, _, name = method.rpartition(".")
    return f"/{service}/{name}"


def call_by_own_client(
    deployed: Deployment,
    address: str,
    method: str,
    requests: Sequence[bytes],
    concurrency: int,
    *,
    answers: Path | None = None,
    access: Access = OPEN,
) -> tuple[ghz.Run, float]:
    """The same by an own client, with requests as bytes; also returns its CPU time per call, in microseconds.

    Raises:
        ProcessFailed: nearly all calls have failed.
    """
    messages = deployed.servers.directory / "requests.bin"
    write_delimited(messages, requests)
    arguments: list[object] = [address, grpc_path(method), messages, concurrency, min(CONNECTIONS, concurrency)]
    if answers is not None:
        arguments += ["--answers", answers]
    if access.root is not None:
        arguments += ["--root", access.root]
    for header in access.headers:
        arguments += ["--header", header]
    command = module("loadtests.gateway.caller", *arguments)
    said = json.loads(finish(command, cores=deployed.cores, directory=deployed.servers.directory, timeout_s=ghz.MOST_S))
    failed = sum(said["failed"].values())
    ghz.check(method, failed, len(requests), said["failed"])
    return ghz.Run(said["rate"], said["calls"], failed, said["p50_ms"], said["p99_ms"]), said["client_cpu_us"]


def measure_in_turns(caller: Caller, servers: Sequence[Server], make: Make, sizes: Sizes) -> None:
    """Call the servers in turns, at each number of calls under way; fills in what was found of them."""
    for concurrency in sizes.concurrency:
        # A first run warms up and tells how many calls fill the time.
        pilots = [caller.call(one, make(sizes.pilot), concurrency).rate for one in servers]
        for one in servers:
            one.cpu_us.pop()
        for _ in range(sizes.rounds):
            for one, rate in zip(servers, pilots, strict=True):
                calls = max(sizes.pilot, round(rate * sizes.seconds))
                one.rates.setdefault(concurrency, []).append(caller.call(one, make(calls), concurrency).rate)
