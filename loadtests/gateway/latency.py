"""`Predict` in an open loop: latencies against the offered load, beside the echo, Triton alone and MLServer.

`python -m loadtests.gateway.latency --quick`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import numpy as np

from loadtests.environment import NotInstalled
from loadtests.figures import Figure, figure
from loadtests.gateway.arguments import Options
from loadtests.gateway.calling import PREDICT, Server, call_by_own_client, echo, grpc_path
from loadtests.gateway.curves import Curve
from loadtests.gateway.delimited import write_delimited
from loadtests.gateway.deployment import Deployment
from loadtests.gateway.model_servers import INFER, infer_requests, mlserver
from loadtests.gateway.open_loop import Latencies, latencies, middle
from loadtests.gateway.parts import Bench, part
from loadtests.gateway.requests import serialized
from loadtests.processes import ProcessFailed, finish, module

HALF = 0.5
MOST_ADDED = 2.0
CLOSED_LOOP = 64
LEAST_CALLS = 300
MOST_FAILED, MOST_P50_MS = 0.2, 1000.0
"""Beyond these a server is over its limit, and higher loads say nothing more."""
ANSWER_S = 30.0
ARRIVALS = "poisson"


@dataclass(frozen=True)
class Sizes:
    """Shares of the top rate that are offered, seconds of each, rounds at half of it, calls to find the top rate."""

    shares: Sequence[float]
    seconds: float
    rounds_at_half: int
    closed_calls: int

    @classmethod
    def of(cls, options: Options) -> Sizes:
        """For these options."""
        if options.quick:
            return cls((0.25, HALF, 1.0), 1.0, 1, 600)
        return cls((0.1, 0.25, HALF, 0.75, 0.9, 1.0, 1.1), 5.0, 3, 15_000)


@dataclass
class Target:
    """A server in the open loop.

    Attributes:
        server: where it is.
        method: what is called.
        make: makes so many requests, as bytes.
        top: calls a second in a closed loop.
        runs: what was found, by share of the gateway's top rate.
        over: whether it is over its limit.
        client_cpu: the largest share of a core that the client used.
    """

    server: Server
    method: str
    make: Callable[[int], list[bytes]]
    top: float = 0.0
    runs: dict[float, list[Latencies]] = field(default_factory=dict)
    over: bool = False
    client_cpu: float = 0.0

    def at(self, share: float) -> Latencies:
        """The middle one of the runs."""
        return middle(self.runs[share])


async def latency(bench: Bench) -> list[Figure]:
    """Measure; see the module."""
    options, sizes = bench.options, Sizes.of(bench.options)
    deployed = await bench.deployed()
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(deployed.serving("latency"))
        answer = await deployed.check(gateway)

        def packed(count: int) -> list[bytes]:
            return serialized(deployed.requests.packed(count))

        def rows(count: int) -> list[bytes]:
            return infer_requests(deployed, count)

        ours = Target(Server("gateway", gateway.address, gateway), PREDICT, packed)
        triton = Target(Server("Triton alone", deployed.servers.triton_url, None), INFER, rows)
        targets = [ours, triton]
        if options.controls:
            bare = Target(stack.enter_context(echo(deployed, answer)), PREDICT, packed)
            bare.server.name = "bare grpc.aio echo"
            targets.insert(0, bare)
            try:
                targets.append(Target(stack.enter_context(mlserver(deployed)), INFER, rows))
            except NotInstalled as error:
                bench.note(f"MLServer is left out: {error}.")
        for one in targets:
            one.top = _closed(deployed, one, sizes)
        top = ours.top
        for share in sizes.shares:
            for _ in range(sizes.rounds_at_half if share == HALF else 1):
                for one in targets:
                    _measure(deployed, one, share, top, sizes.seconds)
    figures = _figures(ours, triton)
    for one in targets:
        if one not in (ours, triton):
            figures += _beside(ours, one)
    bench.curves.extend(Curve(one.server.name, [one.at(share) for share in sorted(one.runs)]) for one in targets)
    return figures


def _closed(deployed: Deployment, one: Target, sizes: Sizes) -> float:
    """The top rate by the same client, in a closed loop."""
    for calls in (one.make(LEAST_CALLS), one.make(sizes.closed_calls)):
        run, _ = call_by_own_client(deployed, one.server.address, one.method, calls, CLOSED_LOOP)
    return run.rate


def _measure(deployed: Deployment, one: Target, share: float, top: float, seconds: float) -> None:
    """Offer a share of the top rate, and keep what was found."""
    if one.over:
        return
    rate, directory = share * top, deployed.servers.directory
    requests, times = directory / "requests.bin", directory / "times.npy"
    calls = one.make(max(LEAST_CALLS, round(rate * seconds)))
    write_delimited(requests, calls)
    arguments = (one.server.address, grpc_path(one.method), requests, rate, ARRIVALS, times)
    command = module("loadtests.gateway.opener", *arguments)
    limit = len(calls) / rate + ANSWER_S
    said = json.loads(finish(command, cores=deployed.cores, directory=directory, timeout_s=limit))
    due, ended = np.load(times)
    try:
        found = latencies(due, ended)
    except ValueError as error:
        raise ProcessFailed(f"{one.server.name} at {rate:.0f} calls/s: {error}; {said['failed']}") from None
    one.runs.setdefault(share, []).append(found)
    one.client_cpu = max(one.client_cpu, float(said["client_cpu"]))
    one.over = found.failed > MOST_FAILED or found.p50_ms > MOST_P50_MS


def _figures(ours: Target, triton: Target) -> list[Figure]:
    half, alone = ours.at(HALF), triton.at(HALF)
    name = "Predict, open loop at half of the top rate"
    control = ("Triton alone, same rate", alone.p99_ms)
    return [
        figure(
            "Predict by the client of the open loop, in a closed one: top rate",
            ours.top,
            "calls/s",
            control=("Triton alone", triton.top),
        ),
        figure(f"{name}: p50", half.p50_ms, "ms", better="lower", control=("Triton alone, same rate", alone.p50_ms)),
        figure(f"{name}: p99", half.p99_ms, "ms", better="lower", control=control),
        figure(
            f"{name}: p99 added over Triton's own, as a multiple of it",
            max(0.0, half.p99_ms - alone.p99_ms) / alone.p99_ms,
            "×",
            better="lower",
            most=MOST_ADDED,
        ),
        figure("Predict, open loop: share of a core that the client used at most", ours.client_cpu, ""),
    ]


def _beside(ours: Target, one: Target) -> list[Figure]:
    """What the other one can take, and where both stand at half of the gateway's top rate."""
    name = one.server.name
    what = f"Predict by the client of the open loop, in a closed one, beside {name}: top rate"
    found = [figure(what, ours.top, "calls/s", control=(name, one.top))]
    if HALF in one.runs:
        what = f"Predict, open loop at half of the top rate, beside {name}: p99"
        control = (f"{name}, same rate", one.at(HALF).p99_ms)
        found.append(figure(what, ours.at(HALF).p99_ms, "ms", better="lower", control=control))
    return found


if __name__ == "__main__":
    part("latency", latency)
