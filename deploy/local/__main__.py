"""The stack from a shell: ``python -m deploy.local up|down|status|logs|produce``."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import click

from deploy.local import console_producer
from deploy.local.errors import StackError
from deploy.local.stack import ProgramStatus, Stack

#: The exit status of `status` when not everything that runs is ready, or nothing runs; as that of init scripts.
NOT_RUNNING = 3


def _stack() -> Stack:
    return Stack(say=lambda line: click.echo(line, err=True))


class _Group(click.Group):
    """Commands whose expected errors are one message and a status, without a trace."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (StackError, PermissionError) as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)


@click.group(cls=_Group, help="The stack without Docker: Kafka, Redis, Triton and the six services on loopback ports.")
def main() -> None:
    pass


@main.command(help="Start what does not run yet and wait until it is ready.")
@click.option("--only", type=click.Choice(["infrastructure"]), help="Start Kafka, Redis and Triton, no services.")
def up(only: str | None) -> None:
    started_at = time.monotonic()
    stack = _stack()
    started = stack.start_infrastructure() if only else stack.up()
    if started:
        click.echo(f"up: {', '.join(started)} ready after {time.monotonic() - started_at:.1f} s")
    else:
        click.echo("already up: nothing to do")


@main.command(help="Stop everything. Data and logs stay in .run/local.")
def down() -> None:
    click.echo("down: no process is left" if _stack().stop() else "already down: no process is left")


@main.command(name="status", help="Show every program: its state, process, uptime, ports and whether it is ready.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of the table.")
def show_status(as_json: bool) -> None:
    lines = _stack().status()
    if as_json:
        click.echo(json.dumps([{**vars(line), "ports": dict(line.ports)} for line in lines], indent=2))
    else:
        click.echo(_table(lines))
    running = [line for line in lines if line.process_id]
    if not running or not all(line.ready for line in running):
        sys.exit(NOT_RUNNING)


@main.command(help="Show the end of the log of one program, or of all.")
@click.argument("name", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("-n", "--lines", default=50, show_default=True, help="How many lines of each to begin with.")
def logs(name: str | None, follow: bool, lines: int) -> None:
    stack = _stack()
    names = [*stack.names, "supervisord"]
    if name and name not in names:
        raise StackError(f"no program {name!r}: there are {', '.join(names)}")
    files = [path for each in ([name] if name else names) if (path := _log(stack, each)).exists()]
    if not files:
        raise StackError(f"nothing has been logged yet in {stack.layout.logs}")
    sys.stdout.flush()
    os.execvp("tail", ["tail", f"--lines={lines}", *(["-F"] if follow else []), *map(str, files)])  # noqa: S606 - no shell is wanted


@main.command(
    help="Publish the lines of standard input to TOPIC by Kafka's own console producer. A line is "
    "headers<TAB>key<TAB>value; `content-type:application/json` says that the value is JSON."
)
@click.argument("topic")
@click.option("--bootstrap", help="The broker as host:port; that of the local stack by default.")
def produce(topic: str, bootstrap: str | None) -> None:
    stack = _stack()
    console_producer.publish(
        stack.layout,
        bootstrap or f"127.0.0.1:{stack.ports.kafka}",
        topic,
        None,
        lambda line: click.echo(line, err=True),
    )


def _log(stack: Stack, name: str) -> Path:
    return stack.layout.logs / f"{name}.log"


def _table(lines: list[ProgramStatus]) -> str:
    rows = [("NAME", "STATE", "PID", "UPTIME", "READY", "PORTS")]
    rows += [
        (
            line.name,
            line.state.lower(),
            str(line.process_id or "-"),
            _duration(line.uptime) if line.process_id else "-",
            "yes" if line.ready else "no",
            ", ".join(f"{port} {use}" for use, port in line.ports.items()),
        )
        for line in lines
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


if __name__ == "__main__":
    main(prog_name="python -m deploy.local")
