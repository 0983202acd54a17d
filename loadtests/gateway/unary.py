"""`Predict`, one event a call, at its top rate: beside a bare grpc.aio echo under the same load generator.

`python -m loadtests.gateway.unary --quick`
"""

from __future__ import annotations

import statistics

from loadtests.figures import Figure, figure
from loadtests.gateway import ghz
from loadtests.gateway.arguments import Options
from loadtests.gateway.calling import Caller, Server, Sizes, echo, measure_in_turns
from loadtests.gateway.deployment import complete
from loadtests.gateway.parts import Bench, part
from loadtests.gateway.requests import Make

GOAL_OF_ECHO = 0.7
ECHO = "bare grpc.aio echo"


async def unary(bench: Bench) -> list[Figure]:
    """Measure; see the module."""
    options, sizes = bench.options, Sizes.of(bench.options)
    deployed = await bench.deployed()
    caller = Caller(deployed, with_ghz=ghz.install())
    figures: list[Figure] = []
    async with deployed.serving("unary") as gateway:
        answer = await deployed.check(gateway)
        with echo(deployed, answer) as control:
            shapes: list[tuple[str, Make]] = [
                ("packed", deployed.requests.packed),
                ("by names", deployed.requests.named),
            ]
            for shape, make in shapes:
                ours = Server("gateway", gateway.address, gateway)
                bare = Server("echo", control.address, control.process)
                degraded = gateway.degraded()
                measure_in_turns(caller, [bare, ours] if options.controls else [ours], make, sizes)
                name = f"Predict, {shape}, by {caller.name}"
                figures += _figures(name, ours, bare, options)
                degraded = gateway.degraded() - degraded
                figures.append(complete(name, degraded + ours.failed, ours.calls))
    return figures


def _figures(name: str, ours: Server, bare: Server, options: Options) -> list[Figure]:
    top = (ECHO, bare.top) if options.controls else None
    cpu = (ECHO, bare.cpu) if options.controls else None
    goal = GOAL_OF_ECHO if options.controls else None
    found = [
        figure(f"{name}: top rate", ours.top, "calls/s", control=top, least_ratio=goal),
        figure(f"{name}: CPU of the server per call", ours.cpu, "µs", better="lower", control=cpu),
    ]
    for concurrency, rates in ours.rates.items():
        control = (ECHO, statistics.median(bare.rates[concurrency])) if options.controls else None
        if len(ours.rates) > 1:
            what = f"{name}: rate with {concurrency} calls under way"
            found.append(figure(what, statistics.median(rates), "calls/s", control=control))
    return found


if __name__ == "__main__":
    part("unary", unary)
