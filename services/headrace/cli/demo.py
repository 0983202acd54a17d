"""`headrace demo`: replay a history through the whole loop, and report."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import click

from headrace.cli.errors import UserError
from headrace.demo.errors import DemoError, SourceError
from headrace.demo.run import DEFAULT_EVENTS, DEFAULT_RATE, DemoOptions, run_demo


@click.group()
def demo() -> None:
    """Replay a history of events."""


@demo.command()
@click.option("--pipeline", default="", help="File, or name in the folder pipelines. [HEADRACE_PIPELINE, else fraud]")
@click.option("--source", type=click.Path(path_type=Path), help="A file with the events. [the pipeline's simulation]")
@click.option("--events", type=click.IntRange(min=10), help=f"How many events. [{DEFAULT_EVENTS:,} simulated ones]")
@click.option("--keep", is_flag=True, help="Leave the stack up.")
@click.option("--lockstep", is_flag=True, help="Step by step, reproducible to the last digit.")
@click.option(
    "--handbook-split",
    "split",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Quality over the test days of the handbook's split that starts on this day.",
)
@click.option("--stack", type=click.Choice(["local", "compose"]), default="local", show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=DEFAULT_RATE,
    show_default=True,
    help="Events per second while flowing; 0 for as fast as they are answered.",
)
@click.pass_context
def run(context: click.Context, /, split: dt.datetime | None, **given: Any) -> None:
    """Start the stack, replay, and write .run/demo/report.json and report.html."""
    from rich.console import Console

    options = DemoOptions(split=split.date() if split else None, **given)
    try:
        context.exit(run_demo(options, Console()))
    except (DemoError, SourceError) as error:
        raise UserError(str(error)) from error
