"""How the parts are run: one by itself or all of them, on one deployment."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from loadtests import bench
from loadtests.figures import Figure
from loadtests.gateway.arguments import Options, parse
from loadtests.gateway.cores import bench_cores
from loadtests.gateway.curves import Curve
from loadtests.gateway.deployment import Deployment, deployment
from loadtests.gateway.report import Cost, page
from loadtests.servers import BENCH

PACKAGES = ("grpcio", "tritonclient", "aiokafka", "redis", "protobuf", "numpy", "uvloop")


class Bench:
    """What the parts of a run share.

    Attributes:
        options: of the run.
        curves: latencies against the load, for the report.
        costs: of options, for the report.
        notes: what a reader has to know beside the figures, for the report.
    """

    def __init__(self, options: Options, stack: ExitStack) -> None:
        """Args:
        options: of the run.
        stack: ends the deployment.
        """
        self.options = options
        self.curves: list[Curve] = []
        self.costs: list[Cost] = []
        self.notes: list[str] = []
        self._stack = stack
        self._deployment: Deployment | None = None

    def note(self, text: str) -> None:
        """Tell the reader something beside the figures."""
        print(text, flush=True)
        self.notes.append(text)

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
        parts = {name: partial(measure, shared) for name, measure in measures.items()}
        status = bench.run(area, parts, packages=PACKAGES, controls=False)
    if status == 0 and (shared.curves or shared.costs):
        _write_page(area, shared)
    return status


def _write_page(area: str, shared: Bench) -> None:
    """Write the report as a page, `.run/bench/<area>.html`, from what the run has written."""
    found = [Figure(**row) for row in json.loads((BENCH / f"{area}.json").read_text(encoding="utf-8"))]
    text, _, _ = (BENCH / f"{area}.txt").read_text(encoding="utf-8").partition("\n\n")
    content = page(text.splitlines(), found, shared.curves, shared.costs, shared.notes)
    (BENCH / f"{area}.html").write_text(content, encoding="utf-8")
    print(f"written: .run/bench/{area}.html", flush=True)
