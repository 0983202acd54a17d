"""A benchmark's report: the machine before it, the table behind it, both in `.run/bench` with the figures as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from loadtests.figures import Figure, table, write_json
from loadtests.machine import describe
from loadtests.servers import BENCH


@contextmanager
def report(area: str, figures: Sequence[Figure], packages: Sequence[str] = ()) -> Iterator[None]:
    """Name the machine, run the block, then print and write what it has added to `figures`.

    What was measured before a failure is reported too.

    Args:
        area: names the files, `.run/bench/<area>.json` and `.txt`.
        figures: filled by the block.
        packages: whose versions matter.
    """
    machine = describe(packages)
    print("\n".join(machine), flush=True)
    began = time.monotonic()
    try:
        yield
    finally:
        if figures:
            lines = [*machine, f"took {time.monotonic() - began:.0f} s", "", table(figures)]
            write_json(BENCH / f"{area}.json", figures)
            (BENCH / f"{area}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
            print("\n".join(["", *lines[len(machine) :]]), flush=True)
            print(f"\nwritten: .run/bench/{area}.json, .run/bench/{area}.txt", flush=True)
