"""What each option costs: `Predict` with it and without it, in turns, by the same client.

`python -m loadtests.gateway.costs --quick`
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from headrace.v1.prediction_service_pb2 import PredictOptions
from loadtests.figures import Figure, figure
from loadtests.gateway.arguments import Options
from loadtests.gateway.calling import OPEN, PREDICT, Access, call_by_own_client
from loadtests.gateway.deployment import Deployment, Gateway
from loadtests.gateway.door import with_api_key, with_tls, with_token
from loadtests.gateway.parts import Bench, part
from loadtests.gateway.report import Cost
from loadtests.gateway.requests import serialized
from loadtests.machine import cpu_seconds
from loadtests.processes import Process, listening, module, running
from loadtests.servers import free_ports

CONCURRENCY = 64
SAMPLED = 0.01


@dataclass(frozen=True)
class Sizes:
    """Calls of a first run, rounds, seconds of each. Without a round the first run is the figure."""

    pilot: int
    rounds: int
    seconds: float

    @classmethod
    def of(cls, options: Options) -> Sizes:
        """For these options."""
        return cls(300, 0, 0.0) if options.quick else cls(1000, 2, 2.5)


@dataclass(frozen=True)
class Variant:
    """An option.

    Attributes:
        name: for people.
        settings: of the gateway; None where the default one serves.
        options: of the calls.
        access: how the client gets in.
    """

    name: str
    settings: Mapping[str, str] | None = None
    options: PredictOptions | None = None
    access: Access = OPEN


@dataclass
class Measured:
    """Calls a second and CPU time of the gateway per call, one a round."""

    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    def add(self, rate: float, cpu_us: float) -> None:
        """What a round found."""
        self.rates.append(rate)
        self.cpu_us.append(cpu_us)


async def costs(bench: Bench) -> list[Figure]:
    """Measure; see the module."""
    deployed, sizes = await bench.deployed(), Sizes.of(bench.options)
    (port,) = free_ports(1)
    sink = module("loadtests.controls.otlp_sink", port)
    directory = deployed.servers.directory
    with running("otlp-sink", sink, cores=deployed.cores, directory=directory) as collector:
        listening(collector, port)
        async with deployed.serving("costs") as default:
            await deployed.check(default)
            for variant in variants(deployed, port):
                bench.costs.append(await _beside(deployed, default, variant, sizes))
    spans = _spans(collector)
    if not spans:
        bench.note("No span reached the collector: the figure of tracing is not one.")
    return [one for cost in bench.costs for one in _figures(cost)]


def variants(deployed: Deployment, collector_port: int) -> Sequence[Variant]:
    """What is compared with the default gateway."""
    directory = deployed.servers.directory
    tls, api_key, token = with_tls(directory), with_api_key(directory), with_token(directory)
    tracing = {
        "HEADRACE_OTLP_ENDPOINT": f"http://127.0.0.1:{collector_port}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(SAMPLED),
    }
    return (
        Variant("explain", options=PredictOptions(explain=True)),
        Variant("ingest", options=PredictOptions(ingest=True)),
        Variant("durable_log off", {"HEADRACE_GATEWAY_DURABLE_LOG": "false"}),
        Variant("TLS", tls.settings, access=tls.access),
        Variant("an API key", api_key.settings, access=api_key.access),
        Variant("a JSON Web Token", token.settings, access=token.access),
        Variant(f"tracing at {SAMPLED:.0%}", tracing),
    )


async def _beside(deployed: Deployment, default: Gateway, variant: Variant, sizes: Sizes) -> Cost:
    """The option and the default in turns."""
    plain = Variant("default")
    async with AsyncExitStack() as stack:
        gateway = default
        if variant.settings is not None:
            gateway = await stack.enter_async_context(deployed.serving("costs-option", variant.settings, instance=1))
        pairs = [(default, plain, Measured()), (gateway, variant, Measured())]
        pilots = [_run(deployed, one, how, sizes.pilot) for one, how, _ in pairs]
        for _ in range(sizes.rounds):
            for (one, how, into), (rate, _) in zip(pairs, pilots, strict=True):
                into.add(*_run(deployed, one, how, max(sizes.pilot, round(rate * sizes.seconds))))
        if not sizes.rounds:
            for (_, _, into), found in zip(pairs, pilots, strict=True):
                into.add(*found)
    without, with_it = pairs[0][2], pairs[1][2]
    return Cost(
        variant.name,
        statistics.median(with_it.rates),
        statistics.median(without.rates),
        statistics.median(with_it.cpu_us),
        statistics.median(without.cpu_us),
    )


def _figures(cost: Cost) -> list[Figure]:
    name, rate, cpu = f"Predict with {cost.option}", cost.rate_without, cost.cpu_us_without
    return [
        figure(f"{name}: rate", cost.rate, "calls/s", control=("default", rate)),
        figure(f"{name}: CPU of the gateway per call", cost.cpu_us, "µs", better="lower", control=("default", cpu)),
    ]


def _run(deployed: Deployment, gateway: Gateway, variant: Variant, calls: int) -> tuple[float, float]:
    """Calls a second, and CPU time of the gateway per call in microseconds."""
    gateway.check()
    made = serialized(deployed.requests.packed(calls, variant.options))
    before = cpu_seconds(gateway.popen.pid, children=True)
    run, _ = call_by_own_client(deployed, gateway.address, PREDICT, made, CONCURRENCY, access=variant.access)
    return run.rate, (cpu_seconds(gateway.popen.pid, children=True) - before) / calls * 1e6


def _spans(collector: Process) -> int:
    """How many spans the collector has taken; it says so when it has ended."""
    said = collector.text().partition("spans: ")[2].split()
    return int(said[0]) if said else 0


if __name__ == "__main__":
    part("costs", costs)
