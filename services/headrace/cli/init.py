"""`headrace init`: a pipeline to start from, and a small file of events to try it on."""

from __future__ import annotations

import csv
import datetime as dt
import io
import random
import re
from importlib import resources
from pathlib import Path
from string import Template

import click

from headrace.cli.errors import UserError

MACHINES, SITES, DAYS, PER_DAY = 30, 5, 12, 8
START = dt.datetime(2025, 1, 6, tzinfo=dt.UTC)
MODES = ("idle", "normal", "heavy")


@click.command()
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("pipelines"),
    show_default=True,
    help="Where the two files go.",
)
def init(name: str, directory: Path) -> None:
    """Write a pipeline to start from, and a small file of events to try it on. Nothing is overwritten."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise UserError(f"name {name!r} is not allowed: lower-case letters, digits and _, a letter first, 41 at most")
    declaration, sample = directory / f"{name}.py", directory / f"{name}_sample.csv"
    for path in (declaration, sample):
        if path.exists():
            raise UserError(f"{path} is there already; nothing was written")
    # By its name alone a pipeline is found in the folder pipelines.
    reference = name if directory == Path("pipelines") else str(declaration)
    template = resources.files("headrace.cli").joinpath("templates/pipeline.py.txt").read_text(encoding="utf-8")
    text = Template(template).substitute(
        title=name.replace("_", " ").capitalize(), name=name.replace("_", "-"), reference=reference, data=sample
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_new(declaration, text)
        _write_new(sample, sample_events())
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    click.echo(f"{declaration}: the declaration, to be changed")
    click.echo(f"{sample}: {MACHINES * DAYS * PER_DAY:,} events with their labels")
    click.echo("next:")
    click.echo(f"  headrace pipeline test {reference} --data {sample}")
    click.echo(f"  headrace pipeline show {reference}")
    click.echo(f"  make demo PIPELINE={reference} SOURCE={sample}")


def sample_events() -> str:
    """Readings of some machines as CSV; one that shakes more and more fails within a day. Always the same."""
    rng = random.Random(1)
    rows = []
    for machine in range(MACHINES):
        wear = rng.uniform(0.0, 0.6)
        for reading in range(DAYS * PER_DAY):
            time = START + dt.timedelta(hours=24 / PER_DAY * reading + rng.uniform(0.0, 2.9))
            mode = rng.choices(MODES, (2, 5, 3))[0]
            load = MODES.index(mode)
            wear += rng.uniform(0.0, 0.04) * (1 + load)
            vibration = max(0.0, 4 + load + 14 * wear**3 + rng.gauss(0.0, 1.0))
            temperature = 40 + 12 * load + 6 * wear + rng.gauss(0.0, 3.0)
            failed = wear > 1.0 and rng.random() < 0.35
            known = time + dt.timedelta(hours=rng.uniform(1.0, 20.0))
            rows.append((time, machine, mode, round(temperature, 1), round(vibration, 2), failed, known))
            if failed:
                wear = rng.uniform(0.0, 0.2)
    rows.sort()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["event_id", "event_time", "machine_id", "site_id", "mode", "temperature", "vibration", "label", "label_time"]
    )
    for number, (time, machine, mode, temperature, vibration, failed, known) in enumerate(rows):
        label = ("1", _iso(known)) if failed else ("", "")
        of = (f"m{machine:02}", f"s{machine % SITES}")
        writer.writerow([f"r{number:05}", _iso(time), *of, mode, temperature, vibration, *label])
    return out.getvalue()


def _iso(time: dt.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _write_new(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8", newline="") as file:
        file.write(text)
