"""The rows of River's own benchmark page, met by the learner: `python -m loadtests.learning.benchmarks [DATASET…]`.

The learner alone, in one process a row: rows come as packed outcomes, features as float32, in the order of label times,
and each is scored just before it is learned. With `--whole` a data set goes through the whole path instead, all models
side by side. Accuracy and F1 of these prequential scores are held to the printed digits of River's page, as River
0.26.1 gives them (`river_published_vs_0.26.1.csv`, columns `river_0.26.1_…`).

Where a row differs, the control says why: River's own loop over the same rows, as double and as float32. A model that
the learner refuses is named with the reason.

As River's page does: a score of exactly one half is the label False, and a row for which an untrained model has no
answer at all does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local.layout import ROOT
from loadtests import bench
from loadtests.figures import Figure, write_json
from loadtests.learning.river_rows import row, whole_path
from loadtests.learning.river_rows.data import FOLDER
from loadtests.learning.river_rows.declaration import DECLARED, MODELS
from loadtests.learning.river_rows.page import Page, Printed, Quality, expected, printed
from loadtests.processes import ProcessFailed
from loadtests.servers import BENCH

PACKAGE = "loadtests.learning.river_rows"
MARGIN_S = 120.0
"""How much longer than its own deadline a process may take to end: it stops servers."""


@dataclass
class Report:
    """What was found so far, written after every row.

    Attributes:
        page: what the rows are held to.
        folder: where River's rows are.
        area: names the file.
        figures: by row.
    """

    page: Page
    folder: Path
    area: str
    figures: list[Figure] = field(default_factory=list)

    def judge(self, dataset: str, model: str, way: str, quality: Quality, took_s: float | None = None) -> bool:
        """Hold a row to the page; says whether it is met."""
        wanted = self.page[dataset, model]
        met = quality.printed == wanted
        took = "" if took_s is None else f", {took_s:.0f} s"
        self._say(dataset, model, quality.printed, f"{'met' if met else 'DIFFERS'} ({way}{took})", wanted)
        for what, value, page in zip(("accuracy", "F1"), (quality.accuracy, quality.f1), wanted, strict=True):
            goal, same = f"{page}, to its digits", printed(value) == page
            name = f"{dataset}, {model}, {way}: {what}"
            self.figures.append(Figure(name, value, "", "River's page", float(page), None, goal, same))
        write_json(BENCH / f"{self.area}.json", self.figures)
        return met

    def missing(self, dataset: str, model: str, verdict: str, reason: str) -> None:
        """Name a row without numbers: the learner refuses the model, or its process has failed."""
        wanted = self.page[dataset, model]
        self._say(dataset, model, ("-", "-"), f"{verdict}: {reason}", wanted)
        goal = f"{wanted[0]}, to its digits"
        self.figures.append(Figure(f"{dataset}, {model}: {verdict}", float("nan"), "", goal=goal, met=False))
        write_json(BENCH / f"{self.area}.json", self.figures)

    @staticmethod
    def _say(dataset: str, model: str, found: Printed, verdict: str, wanted: Printed) -> None:
        print(f"  {dataset:8}  {model:26}  {' / '.join(found)}  page {' / '.join(wanted)}  {verdict}", flush=True)


async def process(module: str, *arguments: str, folder: Path, deadline_s: float, log: Path) -> Any:
    """The JSON that a module of this package prints.

    Args:
        module: of the package.
        arguments: its own.
        folder: where River's rows are.
        deadline_s: the module's own, in seconds.
        log: gets what else it says.

    Raises:
        ProcessFailed: it fails, or does not end in time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", f"{PACKAGE}.{module}", *arguments, "--folder", str(folder)]
    with log.open("wb") as errors:
        running = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=errors, cwd=ROOT
        )
        try:
            async with asyncio.timeout(deadline_s + MARGIN_S):
                said, _ = await running.communicate()
        except TimeoutError:
            raise ProcessFailed(f"{module} {' '.join(arguments)} has not ended after {deadline_s:g} s") from None
        finally:
            if running.returncode is None:
                await _end(running)
    if running.returncode:
        last = await asyncio.to_thread(log.read_text, encoding="utf-8", errors="replace")
        raise ProcessFailed(f"{module} {' '.join(arguments)} ended with {running.returncode}:\n{last[-2000:]}")
    return json.loads(said)


async def _end(running: asyncio.subprocess.Process) -> None:
    running.terminate()
    try:
        async with asyncio.timeout(MARGIN_S):
            await running.wait()
    except TimeoutError:
        running.kill()
        await running.wait()


async def alone(report: Report, dataset: str, models: Sequence[str]) -> list[Figure]:
    """Each model on one data set, by the learner alone."""
    before = len(report.figures)

    async def by(way: str, model: str) -> dict[str, Any]:
        log = BENCH / "river-row.log"
        found: dict[str, Any] = await process(
            "row", dataset, model, "--by", way, folder=report.folder, deadline_s=row.DEADLINE_S, log=log
        )
        return found

    for model in models:
        if (dataset, model) not in report.page:
            continue
        began = time.monotonic()
        try:
            found = await by("learner", model)
        except ProcessFailed as error:
            # The others may well be measured.
            report.missing(dataset, model, "FAILED", str(error))
            continue
        if "refused" in found:
            report.missing(dataset, model, "REFUSED", found["refused"])
        elif not report.judge(dataset, model, "learner alone", Quality(**found), time.monotonic() - began):
            for control, words in (("river", "double"), ("river-float32", "float32")):
                own = Quality(**await by(control, model))
                print(f"    River itself, {words}: {' / '.join(own.printed)}", flush=True)
    return report.figures[before:]


async def whole(report: Report, dataset: str) -> list[Figure]:
    """All models of a data set, through the whole path."""
    before = len(report.figures)
    log = BENCH / f"river-{dataset.lower()}.log"
    try:
        found = await process("whole_path", dataset, folder=report.folder, deadline_s=whole_path.DEADLINE_S, log=log)
    except ProcessFailed as error:
        for model in DECLARED[dataset].models:
            report.missing(dataset, model, "FAILED", str(error))
        return report.figures[before:]
    for model, quality in found.items():
        report.judge(dataset, model, "whole path", Quality(**quality))
    return report.figures[before:]


def main() -> int:
    """Measure, print, and write `.run/bench/river.json`, or `river-whole.json`.

    Returns:
        The exit status: 1 where a row differs, is refused, or could not be measured.
    """
    parser = argparse.ArgumentParser(description="River's own benchmark rows, met by the learner.")
    parser.add_argument("datasets", nargs="*", help=f"some of {', '.join(DECLARED)}")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS, metavar="MODEL", help="alone only")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where River's rows and elec2.csv.gz are")
    parser.add_argument("--whole", action="store_true", help="through the whole path, on a stack of its own")
    arguments = parser.parse_args()
    # So that what was found is written, and the servers are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = arguments.datasets or list(DECLARED)
    if unknown := [name for name in names if name not in DECLARED]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(DECLARED)}")
    report = Report(expected(arguments.folder), arguments.folder, "river-whole" if arguments.whole else "river")

    def part(name: str) -> bench.Part:
        async def measure() -> list[Figure]:
            return await (whole(report, name) if arguments.whole else alone(report, name, arguments.models))

        return measure

    parts = {name: part(name) for name in names}
    failed = bench.run(report.area, parts, packages=("river", "numpy"), controls=False)
    return failed or int(not all(one.met for one in report.figures))


if __name__ == "__main__":
    raise SystemExit(main())
