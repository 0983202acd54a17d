"""`headrace rejected`: records that services could not use, and bringing them back after a repair."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click
from google.protobuf import json_format

from headrace.cli.errors import UserError
from headrace.platform.pipelines import load_pipeline
from headrace.platform.rejected_reading import Selection, SetAside, select
from headrace.platform.rejected_records import REPLAY_HEADER, position_text
from headrace.platform.rejected_replay import Replay, plan_replay
from headrace.platform.rejected_replay import replay as bring_back
from headrace.platform.settings import Settings
from headrace.platform.topics import Topics, deployed_name

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SHOWN_IN_QUESTION = 10


@click.group()
def rejected() -> None:
    """Records that services could not use. Which pipeline, namespace and Kafka: HEADRACE_PIPELINE, _NAMESPACE,
    _KAFKA_BOOTSTRAP.
    """


@rejected.command(name="list")
@click.option("--reason", default="", help="Only those set aside for this reason, for example out_of_range.")
@click.option("--service", default="", help="Only those set aside by this service.")
@click.option("--since", default="", help="Only those set aside since: a duration (90m, 2d) or a time (ISO 8601).")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, with the bytes in base64.")
def list_rejected(reason: str, service: str, since: str, limit: int, as_json: bool) -> None:
    """List what was set aside, oldest first."""
    settings, topics = _deployed()
    counts: Counter[str] = Counter()

    def keep(found: list[SetAside]) -> None:
        counts[found[-1].content.reason] += 1
        if len(found) > limit:
            del found[0]

    selection = Selection(reason, service, _since(since))
    found, replayed = asyncio.run(select(settings.kafka_bootstrap, topics, selection, keep))
    if as_json:
        for one in found:
            click.echo(json.dumps(_as_json(one, topics, one.place in replayed)))
        return
    if not found:
        click.echo("nothing is set aside" if selection == Selection() else "nothing that was set aside is meant")
        return
    _echo_table(found, topics, replayed)
    total = counts.total()
    reasons = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    click.echo(f"{total} records: {reasons}" + (f"; the newest {limit} are shown" if total > limit else ""))


@rejected.command()
@click.option("--reason", default="", help="Only those set aside for this reason.")
@click.option("--service", default="", help="Only those set aside by this service.")
@click.option("--since", default="", help="Only those set aside since: a duration (90m, 2d) or a time (ISO 8601).")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="TOPIC/PARTITION/OFFSET",
    help="Only the record from there, for example events/0/17. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be replayed, and replay nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def replay(reason: str, service: str, since: str, sources: tuple[str, ...], dry_run: bool, yes: bool) -> None:
    """Publish records again to the topic they came from, each once.

    For when what refused them is repaired: a pipeline with a wider bound, a topic that took up an event time. What was
    replayed before is left out, whoever asks; a record that is set aside again can be replayed again.
    """
    settings, topics = _deployed()
    selection = Selection(reason, service, _since(since), {_source(text, topics) for text in sources})
    plan = asyncio.run(plan_replay(settings.kafka_bootstrap, topics, selection))
    known = {position_text(one.content.source) for one in (*plan.due, *(one for one, _ in plan.impossible))}
    if not plan.before:
        for source in sorted(set(selection.sources) - known):
            raise UserError(f"{source} is not in {topics.rejected}")
    if dry_run:
        if plan.due:
            _echo_table(plan.due, topics, set())
        _echo_result(plan, f"{len(plan.due)} would be replayed")
        return
    if plan.due and not yes:
        _echo_table(plan.due[:SHOWN_IN_QUESTION], topics, set())
        click.confirm(f"Publish {len(plan.due)} records again?", abort=True)
    done = asyncio.run(bring_back(settings.kafka_bootstrap, topics, selection)) if plan.due else plan
    _echo_result(done, f"{done.done} replayed")


def _echo_result(plan: Replay, what: str) -> None:
    click.echo(what + (f", {plan.before} had been before" if plan.before else ""))
    for one, reason in plan.impossible:
        click.echo(f"{position_text(one.content.source)} is not replayed: {reason}", err=True)
    if plan.impossible:
        raise click.exceptions.Exit(1)


def _echo_table(found: Sequence[SetAside], topics: Topics, replayed: set[tuple[int, int]]) -> None:
    now_us = dt.datetime.now(dt.UTC).timestamp() * 1e6
    rows = [("AGE", "SERVICE", "REASON", "SOURCE", "EVENT ID", "SIZE", "DETAIL")]
    for one in found:
        rejected = one.content
        source = rejected.source
        again = any(header.name == REPLAY_HEADER for header in rejected.headers)
        state = "(replayed) " if one.place in replayed else "(again) " if again else ""
        rows.append(
            (
                _age(now_us - rejected.rejected_time_us),
                rejected.service,
                rejected.reason,
                f"{source.topic.removeprefix(topics.deployed + '.')}/{source.partition}/{source.offset}",
                _printable(one.event_id)[:24] or "-",
                _size(rejected.value_size_bytes),
                state + _printable(rejected.detail),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    room = max(shutil.get_terminal_size((160, 24)).columns - sum(widths) - 2 * len(widths), 40)
    for row in rows:
        start = "  ".join(text.ljust(width) for text, width in zip(row[:-1], widths, strict=True))
        detail = row[-1] if len(row[-1]) <= room else row[-1][: room - 1] + "…"
        click.echo(f"{start}  {detail}")


def _as_json(one: SetAside, topics: Topics, replayed: bool) -> dict[str, Any]:
    content: dict[str, Any] = json_format.MessageToDict(one.content, preserving_proto_field_name=True)
    return {
        "rejected": f"{topics.rejected}/{one.partition}/{one.offset}",
        "replayed": replayed,
        "event_id": one.event_id,
        **content,
    }


def _age(microseconds: float) -> str:
    seconds = max(microseconds / 1e6, 0)
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _size(count: int) -> str:
    for unit, size in (("MB", 1_000_000), ("kB", 1000)):
        if count >= 10 * size:
            return f"{count / size:.0f} {unit}"
    return f"{count} B"


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _since(text: str) -> int:
    if not text:
        return 0
    duration = re.fullmatch(r"(\d+)([smhd])", text)
    if duration:
        ago = dt.timedelta(seconds=int(duration[1]) * UNITS_S[duration[2]])
        return int((dt.datetime.now(dt.UTC) - ago).timestamp() * 1e6)
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"--since {text!r} is neither a duration, for example 90m or 2d, nor an ISO 8601 time"
        ) from None
    if time.tzinfo is None:
        raise UserError(f"--since {text!r} has no zone; add Z for UTC")
    return int(time.timestamp() * 1e6)


def _source(text: str, topics: Topics) -> str:
    parts = text.rsplit("/", 2)
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise UserError(f"--source {text!r} is not TOPIC/PARTITION/OFFSET, for example events/0/17")
    name = parts[0] if parts[0] in topics.all else f"{topics.deployed}.{parts[0]}"
    if name not in topics.all:
        short = ", ".join(one.removeprefix(topics.deployed + ".") for one in topics.all)
        raise UserError(f"--source {text!r}: there is no topic {parts[0]}; there are {short}")
    return f"{name}/{int(parts[1])}/{int(parts[2])}"


def _deployed() -> tuple[Settings, Topics]:
    # A fault of Kafka is said in one line here, not a second time by the library that met it.
    for library in ("aiokafka", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    settings = Settings.load()
    try:
        deployed = deployed_name(load_pipeline(settings.pipeline).name, settings.namespace)
        return settings, Topics(deployed, definition=settings.definition)
    except ValueError as error:
        raise UserError(str(error)) from error
