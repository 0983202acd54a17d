"""The options that the parts share, and how a part is run by itself."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from loadtests import bench
from loadtests.figures import Figure

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
    raise SystemExit(run(f"features-{name}", {name: measure}, parse(f"The feature engine: {name}.")))


def run(area: str, measures: Mapping[str, Measure], options: Options) -> int:
    """Run parts with these options; returns the exit status."""
    parts = {name: partial(measure, options) for name, measure in measures.items()}
    return bench.run(area, parts, packages=PACKAGES, controls=options.controls)
