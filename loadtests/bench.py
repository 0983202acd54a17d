"""Running a bench: one part after the other, each on an event loop of its own, with one report over all of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import uvloop

from loadtests.environment import NotInstalled, control_python
from loadtests.figures import Figure, table, write_json
from loadtests.machine import describe
from loadtests.processes import ProcessFailed
from loadtests.servers import BENCH, ServersError

Part = Callable[[], Coroutine[Any, Any, list[Figure]]]


def run(area: str, parts: Mapping[str, Part], *, packages: Sequence[str] = (), controls: bool = True) -> int:
    """Run the parts of an area and report.

    Args:
        area: names the files: `.run/bench/<area>.json` and `.txt`.
        parts: what to measure, by name.
        packages: whose versions matter.
        controls: whether the controls' libraries are needed.

    Returns:
        The exit status: 1 where something could not be measured, whatever the figures say.
    """
    figures: list[Figure] = []
    # Topics that have just been created make producers ask again, and say so.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        if controls:
            control_python()
        with _reporting(area, figures, packages):
            for name, measure in parts.items():
                print(f"measuring {name}", flush=True)
                began = time.monotonic()
                figures += uvloop.run(measure())
                print(f"  took {time.monotonic() - began:.0f} s", flush=True)
    except (NotInstalled, ProcessFailed, ServersError, TimeoutError) as error:
        print(f"error: {error or 'not in time'}", flush=True)
        return 1
    return 0


@contextmanager
def _reporting(area: str, figures: Sequence[Figure], packages: Sequence[str]) -> Iterator[None]:
    """Name the machine, run the block, then print and write what it has added to `figures`, even if it failed."""
    machine = describe(packages)
    print("\n".join(machine), flush=True)
    began = time.monotonic()
    try:
        yield
    finally:
        if figures:
            found = [f"took {time.monotonic() - began:.0f} s", "", table(figures)]
            write_json(BENCH / f"{area}.json", figures)
            (BENCH / f"{area}.txt").write_text("\n".join([*machine, *found]) + "\n", encoding="utf-8")
            print("\n".join(["", *found]), flush=True)
            print(f"\nwritten: .run/bench/{area}.json, .run/bench/{area}.txt", flush=True)
