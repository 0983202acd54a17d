"""The options that the parts share, and how a part is run by itself."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from loadtests.environment import NotInstalled, control_python
from loadtests.figures import Figure
from loadtests.processes import ProcessFailed
from loadtests.report import report
from loadtests.servers import ServersError

PACKAGES = ("aiokafka", "redis", "numpy", "faust-streaming", "protobuf")
EVENTS = 400_000
QUICK_EVENTS = 20_000
HANDBOOK_EVENTS = 1_754_155


@dataclass(frozen=True)
class Options:
    """What to measure with.

    Attributes:
        events: how many payments go through Kafka.
        recomputed: how many are recomputed offline.
        source: a file with the handbook's raw columns; None simulates.
        controls: whether to run the controls.
        quick: sizes for a check that everything works, not for figures.
    """

    events: int
    recomputed: int
    source: Path | None
    controls: bool
    quick: bool


Measure = Callable[[Options], Coroutine[Any, Any, list[Figure]]]


def parse(description: str, arguments: Sequence[str] | None = None) -> Options:
    """Options from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--events", type=int, help=f"payments through Kafka ({EVENTS:,})")
    parser.add_argument("--recomputed", type=int, help=f"payments recomputed offline ({HANDBOOK_EVENTS:,})")
    parser.add_argument("--source", type=Path, help="parquet or csv with the handbook's raw columns, not the simulator")
    parser.add_argument("--no-controls", action="store_true", help="only ours: needs no other libraries")
    parser.add_argument("--quick", action="store_true", help="small sizes: a check that it works, not figures")
    given = parser.parse_args(arguments)
    return Options(
        events=given.events or (QUICK_EVENTS if given.quick else EVENTS),
        recomputed=given.recomputed or (10 * QUICK_EVENTS if given.quick else HANDBOOK_EVENTS),
        source=given.source,
        controls=not given.no_controls,
        quick=given.quick,
    )


def part(name: str, measure: Measure) -> None:
    """Run one part by itself: its table, and `.run/bench/features-<part>.json`."""
    options = parse(f"features, {name}")
    raise SystemExit(run(f"features-{name}", [measure], options))


def run(area: str, measures: Sequence[Measure], options: Options) -> int:
    """Run parts one after the other and report; returns the exit status, 1 where something cannot be measured."""
    figures: list[Figure] = []
    # Topics that have just been created make producers ask again, and say so.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        if options.controls:
            control_python()
        with report(area, figures, PACKAGES):
            for measure in measures:
                print(f"measuring: {measure.__name__.replace('_', ' ')}", flush=True)
                figures += uvloop.run(measure(options))
    except (NotInstalled, ProcessFailed, ServersError, TimeoutError) as error:
        print(f"error: {error or 'not in time'}", flush=True)
        return 1
    return 0
