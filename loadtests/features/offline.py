"""Recomputing a whole history: `headrace features compute` beside DuckDB's window functions, Parquet to Parquet.

`python -m loadtests.features.offline --recomputed 200000`, with `--source handbook_raw.parquet` for the handbook's own.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from headrace.pipeline import Pipeline
from headrace.platform.pipelines import load_pipeline
from loadtests.environment import control_python
from loadtests.features.arguments import Options, part
from loadtests.features.deployment import PIPELINE
from loadtests.features.payments import payments
from loadtests.figures import Figure, figure
from loadtests.processes import finish, module
from loadtests.servers import BENCH

GOAL_S = 60.0
GOAL_EVENTS = 1_754_155
MOST_S = 300.0
LABEL_DELAY = pl.duration(days=7)
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Spent:
    """Wall and CPU time of a program with its children, in seconds."""

    wall_s: float
    cpu_s: float


async def offline(options: Options) -> list[Figure]:
    """Measure; see the module."""
    pipeline = load_pipeline(PIPELINE)
    BENCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="offline-", dir=BENCH) as made:
        directory = Path(made)
        events, labels = directory / "events.parquet", directory / "labels.parquet"
        count = write_history(options.recomputed, options.source, events, labels)
        ours, control = directory / "headrace.parquet", directory / "duckdb.parquet"
        compute = [sys.executable, "-m", "headrace.cli", "features", "compute"]
        spent = _run([*compute, "--from", str(events), "--labels", str(labels), "--to", str(ours)], directory)
        most = GOAL_S if count >= GOAL_EVENTS else None
        what = f"recomputation of {count:,} payments"
        if not options.controls:
            return [figure(f"{what}, by wall", spent.wall_s, "s", better="lower", most=most)]
        threads = len(os.sched_getaffinity(0))
        command = module("loadtests.controls.duckdb_windows", events, labels, control, threads, python=control_python())
        other = _run(command, directory)
        name = f"DuckDB windows, {threads} threads"
        different = rows_that_differ(pipeline, ours, control)
        return [
            figure(f"{what}, by wall", spent.wall_s, "s", better="lower", control=(name, other.wall_s), most=most),
            figure(f"{what}, by CPU time", spent.cpu_s, "s", better="lower", control=(name, other.cpu_s)),
            figure("rows that differ from DuckDB's", different, "rows", better="lower", most=0),
        ]


def write_history(count: int, source: Path | None, events: Path, labels: Path) -> int:
    """Write payments as events and labels, as `headrace features compute` reads them; returns how many."""
    table = payments(count, source).select(
        event_id=pl.col("TRANSACTION_ID").cast(pl.String),
        event_time=pl.col("TX_DATETIME").cast(pl.Datetime("us")),
        customer_id=pl.col("CUSTOMER_ID").cast(pl.String),
        terminal_id=pl.col("TERMINAL_ID").cast(pl.String),
        amount_cents=(pl.col("TX_AMOUNT") * 100).round().cast(pl.Int64),
        label=pl.col("TX_FRAUD").cast(pl.Int8),
    )
    table.drop("label").write_parquet(events)
    table.select("event_id", "label", label_time=pl.col("event_time") + LABEL_DELAY).write_parquet(labels)
    return len(table)


def rows_that_differ(pipeline: Pipeline, ours: Path, control: Path) -> int:
    """Events whose windowed features are not the control's."""
    names = [name for name in pipeline.feature_names if name not in {"amount", "weekend", "night"}]
    mine = pl.read_parquet(ours).sort("event_time", "event_id")
    theirs = pl.read_parquet(control).sort("event_time", "event_id")
    if mine["event_id"].to_list() != theirs["event_id"].to_list():
        raise RuntimeError("the two have not the same events")
    # In the pipeline's order: count and mean by window, then count and rate by window.
    columns = [f"customer_{what}_{days}" for days in (1, 7, 30) for what in ("count", "mean")]
    columns += [f"terminal_{what}_{days}" for days in (1, 7, 30) for what in ("count", "rate")]
    wrong = pl.Series([False]).new_from_index(0, len(mine))
    for name, column in zip(names, columns, strict=True):
        wrong |= (mine[name] - theirs[column]).abs() > TOLERANCE
    return int(wrong.sum())


def _run(command: Sequence[str], directory: Path) -> Spent:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    finish(command, cores=frozenset(os.sched_getaffinity(0)), directory=directory, timeout_s=MOST_S)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(time.perf_counter() - began, cpu)


if __name__ == "__main__":
    part("offline", offline)
