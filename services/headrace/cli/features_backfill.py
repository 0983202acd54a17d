"""`headrace features backfill`, `list` and `retire`: the states of a pipeline's definitions."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli.errors import UserError
from headrace.cli.progress_bar import ProgressBar
from headrace.features.backfill_processes import BackfillTask, run_backfill
from headrace.features.reset import forget_commits
from headrace.features.stored_states import StoredState, delete_state, list_states
from headrace.platform.kafka import KafkaAdmin
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis import connect, require_safe
from headrace.platform.settings import Settings
from headrace.platform.topics import Topics, check_topics, deployed_name

if TYPE_CHECKING:
    from headrace.offline.history_blocks import ParquetHistory
    from headrace.pipeline import Pipeline


@click.command()
@click.option("--events", type=click.Path(dir_okay=False, path_type=Path), help="Parquet file of older events.")
@click.option("--labels", type=click.Path(dir_okay=False, path_type=Path), help="Parquet file of their labels.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes.")
@click.option("--batch", type=click.IntRange(100, 100_000), default=5_000, show_default=True, help="Events per batch.")
@click.option(
    "--chunk", type=click.IntRange(10, 10_000), default=500, show_default=True, help="Events per Redis script."
)
def backfill(events: Path | None, labels: Path | None, workers: int, batch: int, chunk: int) -> None:
    """Build the state of a changed definition from history, while the former one serves.

    Set HEADRACE_PIPELINE to the changed declaration and HEADRACE_DEFINITION to a new name. The history is what
    `events` and `outcomes` hold up to now and, before it, the Parquet files. Columns of the events: event_id,
    event_time and the fields of the schema. Columns of the labels: event_id, label and label_time.

    Start a worker with the same settings afterwards: it goes on from the cut-over that is printed. A backfill that was
    interrupted goes on when it is run again.
    """
    settings = Settings.load()
    pipeline = load_pipeline(settings.pipeline)
    topics = _topics(settings, pipeline)
    history = _history(settings.pipeline, events, labels)
    asyncio.run(check_topics(settings.kafka_bootstrap, topics.deployed, definition=topics.definition))
    task = BackfillTask(settings.pipeline, topics, settings.kafka_bootstrap, settings.redis_url, history, batch, chunk)
    with ProgressBar("backfilling") as bar:
        done = asyncio.run(run_backfill(task, workers, bar.reached))
    rate = f" in {done.seconds:.1f} s ({done.records / max(done.seconds, 1e-9):,.0f}/s)" if done.records else ""
    click.echo(f"{topics.deployed}: {done.records:,} records merged into {pipeline.features_fingerprint:016x}{rate}")
    for partition, (offset, _) in sorted(done.cut_over.events.items()):
        click.echo(f"cut-over: {topics.events}/{partition} at offset {offset}")
    for partition, offset in sorted(done.cut_over.outcomes.items()):
        click.echo(f"cut-over: {topics.outcomes}/{partition} at offset {offset}")
    click.echo("`headrace run features` with these settings goes on from there")


@click.command(name="list")
def list_command() -> None:
    """List the states of the deployed pipeline, those of former definitions too."""
    settings = Settings.load()
    pipeline = load_pipeline(settings.pipeline)
    topics = _topics(settings, pipeline)
    states = asyncio.run(_list(settings.redis_url, topics.deployed))
    if not states:
        click.echo(f"{topics.deployed}: no state")
    for one in states:
        click.echo(_line(one, pipeline.features_fingerprint))


@click.command()
@click.argument("fingerprint")
@click.option("--definition", help="Name of the definition, where the state does not say; '' is the first one.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def retire(fingerprint: str, definition: str | None, yes: bool) -> None:
    """Delete the state of a definition that is no longer used, what its workers have committed, and its vectors.

    `headrace features list` shows the FINGERPRINT of each. The vectors of the first definition stay: their topic is
    used again when it returns.
    """
    settings = Settings.load()
    pipeline = load_pipeline(settings.pipeline)
    topics = _topics(settings, pipeline)
    states = {f"{one.fingerprint:016x}": one for one in asyncio.run(_list(settings.redis_url, topics.deployed))}
    if fingerprint not in states:
        known = ", ".join(states) or "none"
        raise UserError(f"{topics.deployed} has no state {fingerprint}; there are: {known}")
    state = states[fingerprint]
    name = state.definition if definition is None else definition
    if name is None:
        raise UserError(f"state {fingerprint} does not say which definition made it; name it by --definition")
    shared = [one for one in states.values() if one is not state and one.definition == name]
    if not yes:
        click.confirm(f"Delete state {fingerprint} of {topics.deployed} ({state.bytes:,} bytes)?", abort=True)
    former = Topics(topics.deployed, definition=name)
    # Of two states under one name, the commits belong to the one that is declared.
    keeps_name = bool(shared) and state.fingerprint != pipeline.features_fingerprint
    deleted = asyncio.run(_retire(settings, former, state.fingerprint, keeps_name=keeps_name))
    click.echo(f"{topics.deployed}: state {fingerprint} deleted, {deleted} keys")


async def _list(redis_url: str, deployed: str) -> list[StoredState]:
    client = connect(redis_url)
    try:
        await require_safe(client)
        return await list_states(client, deployed)
    finally:
        await client.aclose()


async def _retire(settings: Settings, topics: Topics, fingerprint: int, *, keeps_name: bool) -> int:
    if not keeps_name:
        await forget_commits(topics, settings.kafka_bootstrap)
        if topics.definition:
            async with KafkaAdmin(settings.kafka_bootstrap) as admin:
                await admin.delete_topics([topics.vectors])
    client = connect(settings.redis_url)
    try:
        return await delete_state(client, topics.deployed, fingerprint)
    finally:
        await client.aclose()


def _line(state: StoredState, current: int) -> str:
    age = time.time() - state.newest_us / 1e6
    definition = {None: "unknown definition", "": "first definition"}.get(state.definition, state.definition)
    newest = f"newest record produced {_duration(age)} ago" if state.newest_us else "empty"
    marks = [
        mark
        for mark, holds in (("as declared", state.fingerprint == current), ("unfinished", state.unfinished))
        if holds
    ]
    text = f"{state.fingerprint:016x}  {definition}  {state.logs:,} logs  {state.bytes:,} bytes  {newest}"
    return "  ".join([text, *marks])


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{max(seconds, 0):.0f} s"


def _history(pipeline: str, events: Path | None, labels: Path | None) -> ParquetHistory | None:
    if events is None:
        if labels is not None:
            raise UserError("--labels needs --events: labels say nothing of when and whose their events are")
        return None
    if importlib.util.find_spec("polars") is None:
        raise UserError(
            "`headrace features backfill --events` needs polars, which is not installed: pip install headrace[offline]"
        )
    from headrace.offline.history_blocks import ParquetHistory

    history = ParquetHistory(pipeline, events, labels)
    history.check()
    return history


def _topics(settings: Settings, pipeline: Pipeline) -> Topics:
    try:
        return Topics(deployed_name(pipeline.name, settings.namespace), definition=settings.definition)
    except ValueError as error:
        raise UserError(str(error)) from error
