"""How the parts are run: one by itself or all of them, on one deployment."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from loadtests import bench
from loadtests.figures import Figure
from loadtests.gateway.arguments import Options, parse
from loadtests.gateway.cores import bench_cores
from loadtests.gateway.deployment import Deployment, deployment

PACKAGES = ("grpcio", "tritonclient", "aiokafka", "redis", "protobuf", "numpy", "uvloop")


class Bench:
    """What the parts of a run share.

    Attributes:
        options: of the run.
    """

    def __init__(self, options: Options, stack: ExitStack) -> None:
        """Args:
        options: of the run.
        stack: ends the deployment.
        """
        self.options = options
        self._stack = stack
        self._deployment: Deployment | None = None

    async def deployed(self) -> Deployment:
        """The deployment, made by the first part that asks for it."""
        if self._deployment is None:
            made = self._stack.enter_context(deployment(self.options, bench_cores()))
            await made.create()
            self._deployment = made
        return self._deployment


Measure = Callable[[Bench], Coroutine[Any, Any, list[Figure]]]


def part(name: str, measure: Measure) -> None:
    """Run one part by itself: its table, and `.run/bench/gateway-<part>.json`."""
    raise SystemExit(run(f"gateway-{name}", {name: measure}, parse(f"The gateway: {name}.")))


def run(area: str, measures: Mapping[str, Measure], options: Options) -> int:
    """Run parts with these options; returns the exit status."""
    with ExitStack() as stack:
        shared = Bench(options, stack)
        return bench.run(
            area,
            {name: partial(measure, shared) for name, measure in measures.items()},
            packages=PACKAGES,
            controls=False,
        )
