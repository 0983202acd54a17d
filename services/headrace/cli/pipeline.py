"""`headrace pipeline`: what a definition costs, what a change of it breaks, and a trial of it in one process."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.errors import UserError
from headrace.pipeline import DAY, HOUR
from headrace.pipeline.coarse_sections import CELL_RECORD
from headrace.pipeline.description import Change, compare_definitions, describe_pipeline, describe_plan
from headrace.pipeline.features import duration_name
from headrace.pipeline.state import compile_plan
from headrace.platform.pipelines import load_pipeline
from headrace.platform.settings import Settings
from headrace.platform.topics import deployed_name

if TYPE_CHECKING:
    from headrace.features.state_description import DescribedState
    from headrace.pipeline import Pipeline
    from headrace.pipeline.description import EntityDescription, PlanDescription

NOT_SHOWN = ("name", "operation", "entity", "window", "delay", "hop", "half_life", "of", "where", "source", "derived")


@click.group()
def pipeline() -> None:
    """Look at a pipeline's definition. NAME is a file, or the name of one in the folder pipelines; without it,
    HEADRACE_PIPELINE says which.
    """


@pipeline.command()
@click.argument("name", default="")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@click.option(
    "--events-per-day",
    type=click.FloatRange(min=0),
    default=100.0,
    show_default=True,
    help="Events of one key on a day, for its bytes.",
)
def show(name: str, as_json: bool, events_per_day: float) -> None:
    """Print the compiled plan: what is kept and read for each entity, and what each feature is."""
    declared = load_pipeline(name or Settings.load().pipeline)
    plan = describe_plan(compile_plan(declared))
    if as_json:
        data = asdict(plan)
        for key in ("features_fingerprint", "schema_fingerprint"):
            data[key] = f"{data[key]:016x}"
        for entity, described in zip(data["entities"], plan.entities, strict=True):
            sketches = _sketches(declared, described.entity)
            entity["bytes_per_key"] = round(_bytes_of_key(described, sketches, events_per_day))
        click.echo(json.dumps({"plan": data, "definition": describe_pipeline(declared)}, indent=2))
        return
    _show(declared, plan, events_per_day)


@pipeline.command()
@click.argument("name", default="")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
@click.pass_context
def check(context: click.Context, name: str, as_json: bool) -> None:
    """Check a definition, and say what it would break of what runs. Status 1 when something breaks.

    It is compared with the definition that the features worker of the same deployed pipeline was last started with
    (HEADRACE_NAMESPACE, HEADRACE_DEFINITION, HEADRACE_REDIS_URL).
    """
    settings = Settings.load(**({"pipeline": name} if name else {}))
    declared = load_pipeline(settings.pipeline)
    try:
        deployed = deployed_name(declared.name, settings.namespace)
    except ValueError as error:
        raise UserError(str(error)) from error
    states = asyncio.run(_states(settings.redis_url, deployed))
    running = _running(states, declared, settings.definition)
    changes = compare_definitions(running.described, declared) if running and running.described else []
    breaking = any(change.breaking for change in changes)
    if as_json:
        data = {
            "deployed": deployed,
            "running": f"{running.fingerprint:016x}" if running else None,
            "features_fingerprint": f"{declared.features_fingerprint:016x}",
            "breaking": breaking,
            "changes": [asdict(change) for change in changes],
        }
        click.echo(json.dumps(data, indent=2))
    else:
        _report(deployed, declared, states, running, changes)
    context.exit(1 if breaking else 0)


@pipeline.command()
@click.argument("name", default="")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="A .parquet, .csv or .jsonl file of events."
)
@click.option("--events", type=click.IntRange(min=1), help="At most so many events, the earliest.")
@click.option("--samples", type=click.IntRange(0, 10), default=3, show_default=True, help="Vectors to show.")
def test(name: str, data: Path, events: int | None, samples: int) -> None:
    """Run a pipeline over a file in this process: features, learning and quality, without Kafka and Redis.

    The file has the columns event_id, event_time, the fields of the event, label (0, 1 or empty) and label_time (when
    the label becomes known; without it, at the horizon). Every event is scored before its own label is known.
    """
    from rich.console import Console

    from headrace.demo.errors import SourceError
    from headrace.demo.history_source import load_history
    from headrace.demo.trial import run_trial
    from headrace.demo.trial_table import print_trial
    from headrace.learner.errors import LearnerError

    reference = name or Settings.load().pipeline
    declared = load_pipeline(reference)
    try:
        history = load_history(reference, declared, data, events)
        trial = run_trial(declared, history)
    except (SourceError, LearnerError) as error:
        raise UserError(str(error)) from error
    print_trial(declared, history, trial, Console(), samples)


async def _states(redis_url: str, deployed: str) -> list[DescribedState]:
    from headrace.features.state_description import read_descriptions
    from headrace.platform.redis import answering, connect

    client = connect(redis_url)
    try:
        with answering():
            return await read_descriptions(client, deployed)
    finally:
        await client.aclose()


def _running(states: list[DescribedState], declared: Pipeline, definition: str) -> DescribedState | None:
    """The state that the definition would follow: that of its own features, else the one of the same name."""
    own = [one for one in states if one.fingerprint == declared.features_fingerprint]
    of_name = [one for one in states if one.definition == definition and one.described is not None]
    return next(iter([*own, *of_name]), None)


def _report(
    deployed: str,
    declared: Pipeline,
    states: list[DescribedState],
    running: DescribedState | None,
    changes: list[Change],
) -> None:
    click.echo(f"{deployed}: the definition is right, features {declared.features_fingerprint:016x}")
    if running is None:
        others = ", ".join(f"{one.fingerprint:016x}" for one in states)
        click.echo(f"no state of a definition to compare with{f'; there are states {others}' if others else ''}")
        return
    if running.described is None:
        click.echo(f"state {running.fingerprint:016x} has these features; its worker did not say with what else")
        return
    if not changes:
        click.echo(f"state {running.fingerprint:016x} was made by the same definition: nothing changes")
        return
    for breaking, title in ((True, "breaks"), (False, "goes on")):
        of_kind = [change for change in changes if change.breaking == breaking]
        if of_kind:
            click.echo(f"{title}:")
        for change in of_kind:
            click.echo(f"  {change.what}\n    {change.why}")
    if running.fingerprint != declared.features_fingerprint:
        click.echo(
            "to change over without a gap: set HEADRACE_DEFINITION to a new name, run `headrace features backfill`, "
            "and start a second features service with the same settings"
        )


def _show(declared: Pipeline, plan: PlanDescription, events_per_day: float) -> None:
    label, rules = declared.label, declared.monitoring
    click.echo(f"pipeline {plan.pipeline}: {len(plan.features)} features of {len(plan.entities)} entities")
    click.echo(f"  events keyed by {declared.key}; fields {', '.join(field.name for field in declared.event.fields)}")
    number = " ".join(filter(None, (label.kind, label.unit and f"of {label.unit}")))
    click.echo(f"  label {number}, horizon {duration_name(label.horizon)}, without one: {label.expired}")
    click.echo(
        f"  lateness {duration_name(declared.lateness)}, season {duration_name(rules.season)}, "
        f"model {declared.model.name}" + "".join(f", challenger {one.name}" for one in declared.challengers)
    )
    click.echo(f"  fingerprints: features {plan.features_fingerprint:016x}, schema {plan.schema_fingerprint:016x}")
    click.echo(f"  reads of one event: {plan.reads} keys in one round trip")
    for entity in plan.entities:
        click.echo(
            f"\nentity {entity.entity} ({entity.field}): {entity.features} features, {entity.edges} window edges"
        )
        for line in _costs(entity, _sketches(declared, entity.entity), events_per_day):
            click.echo(f"  {line}")
    click.echo("\nfeatures")
    described = describe_pipeline(declared)["features"]
    width = max(len(one) for one in described)
    for feature, parts in described.items():
        click.echo(f"  {feature:<{width}}  {_in_words(parts)}")


def _sketches(declared: Pipeline, entity: str) -> int:
    """Different sketches of an entity: each keeps a cell of its own for an event, at most."""
    view = next(one for one in declared.views if one.entity == entity)
    kinds = {(a.operation, a.of, a.where) for a in view.aggregations if a.operation in {"distinct", "quantile"}}
    return len(kinds)


def _bytes_of_key(entity: EntityDescription, sketches: int, events_per_day: float) -> float:
    """The most bytes of a key at a steady rate of events, their labels included."""
    events = events_per_day * entity.retention_us / DAY
    labels = entity.label_bytes * events
    if not entity.bucket_us:
        return entity.event_bytes * (1 + events) + labels
    # An event makes one bucket and one cell of each sketch, where it shares none with another.
    merged = min(entity.coarse_bound, events * (entity.bucket_bytes + CELL_RECORD.itemsize * sketches))
    return merged + entity.event_bytes * (1 + events_per_day * entity.raw_us / DAY) + labels


def _costs(entity: EntityDescription, sketches: int, events_per_day: float) -> list[str]:
    lanes = ", ".join(f"{lane.name} {lane.dtype} ({lane.kind})" for lane in entity.lanes) or "none"
    lines = [f"lanes: time, id, {lanes}" if entity.lanes else "lanes: time, id"]
    kept = f"an event adds {entity.event_bytes} bytes"
    if entity.label_bytes:
        kept += f", its label {entity.label_bytes}"
    lines.append(f"{kept}; kept for {_duration(entity.retention_us)}")
    if entity.bucket_us:
        lines.append(
            f"after {_duration(entity.raw_us)} merged by {duration_name(entity.bucket_us)}: {entity.bucket_bytes} "
            f"bytes each, {entity.coarse_bound:,} at most for a key"
        )
    most = _bytes_of_key(entity, sketches, events_per_day)
    lines.append(f"bytes of a key at {events_per_day:g} events a day, labels included: {most:,.0f} at most")
    return lines


def _duration(duration: int) -> str:
    """A duration that may have no round unit."""
    name = duration_name(duration)
    if len(name) <= 3:
        return name
    return f"{duration / DAY:.1f}d" if duration >= 2 * DAY else f"{duration / HOUR:.1f}h"


def _in_words(parts: dict[str, Any]) -> str:
    """A described feature on one line."""
    if "operation" not in parts:
        if "source" in parts or "derived" in parts:
            source = str(parts.get("source") or parts.get("derived"))
            return ("of the event: " if "source" in parts else "of other features: ") + _body(source)
        of = f" {parts['of']}" if "of" in parts else ""
        return f"{parts.get('kind', '')}{of}".strip() or "of the event"
    text = f"{parts['operation']} {parts['of']}".strip()
    text += f" over {duration_name(int(parts['window']))}"
    for key, words in (("half_life", "half-life"), ("delay", "delay"), ("hop", "hop")):
        value = int(parts.get(key, 0))
        if value:
            text += f", {words} {duration_name(value)}"
    if "where" in parts:
        text += f", where {_body(parts['where'])}"
    more = [f"{key} {value}" for key, value in parts.items() if key not in NOT_SHOWN and value not in {"all", "0.0"}]
    return ", ".join([text, *more])


def _body(source: str) -> str:
    """What a function returns, as its source has it."""
    lines = [line.strip() for line in source.splitlines()]
    returned = [line.removeprefix("return ") for line in lines if line.startswith("return ")]
    return returned[0] if returned else lines[0]
