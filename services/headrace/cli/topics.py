"""`headrace topics`: topics of a pipeline."""

from __future__ import annotations

import asyncio

import click

from headrace.cli.errors import UserError
from headrace.platform.kafka_admin import KafkaAdmin
from headrace.platform.pipelines import load_pipeline
from headrace.platform.settings import Settings
from headrace.platform.topics import DATA_PARTITIONS, EVENT_DAYS, OUTCOME_DAYS, Topics, create_topics, deployed_name


@click.group()
def topics() -> None:
    """Topics of a pipeline. Which pipeline and where: HEADRACE_PIPELINE, _NAMESPACE, _DEFINITION, _KAFKA_BOOTSTRAP."""


@topics.command()
@click.option("--partitions", type=click.IntRange(1, 1000), default=DATA_PARTITIONS, show_default=True)
@click.option("--replication", type=click.IntRange(1, 10), default=1, show_default=True, help="Copies of a partition.")
@click.option("--event-days", type=click.FloatRange(0, min_open=True), default=EVENT_DAYS, show_default=True)
@click.option("--outcome-days", type=click.FloatRange(0, min_open=True), default=OUTCOME_DAYS, show_default=True)
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True)
def create(partitions: int, replication: int, event_days: float, outcome_days: float, timeout_s: float) -> None:
    """Create the topics that are not there. Those that are stay as they are."""
    settings, deployed = _deployed()
    created = asyncio.run(
        create_topics(
            settings.kafka_bootstrap,
            deployed,
            partitions,
            replication=replication,
            event_days=event_days,
            outcome_days=outcome_days,
            definition=settings.definition,
            timeout_s=timeout_s,
        )
    )
    names = Topics(deployed, definition=settings.definition)
    for name in names.all:
        click.echo(f"{name}: {'created' if name in created else 'was there'}")


@topics.command(name="list")
def list_topics() -> None:
    """List the topics with their numbers of partitions."""
    settings, deployed = _deployed()
    names = Topics(deployed, definition=settings.definition)

    async def found() -> dict[str, int]:
        async with KafkaAdmin(settings.kafka_bootstrap) as admin:
            return await admin.partitions(names.all)

    there = asyncio.run(found())
    for name in names.all:
        click.echo(f"{name}: {there[name]} partitions" if name in there else f"{name}: missing")


def _deployed() -> tuple[Settings, str]:
    settings = Settings.load()
    try:
        return settings, deployed_name(load_pipeline(settings.pipeline).name, settings.namespace)
    except ValueError as error:
        raise UserError(str(error)) from error
