"""`headrace features`: the feature state of a pipeline."""

from __future__ import annotations

import asyncio

import click

from headrace.cli.errors import UserError
from headrace.cli.feature_history import compute, parity
from headrace.cli.features_backfill import backfill, list_command, retire
from headrace.features.reset import reset as reset_state
from headrace.platform.pipelines import load_pipeline
from headrace.platform.settings import Settings
from headrace.platform.topics import Topics, deployed_name


@click.group()
def features() -> None:
    """The feature state of a pipeline. Which pipeline and where: HEADRACE_PIPELINE, _NAMESPACE, _DEFINITION,
    _KAFKA_BOOTSTRAP, _REDIS_URL.
    """


features.add_command(backfill)
features.add_command(compute)
features.add_command(parity)
features.add_command(list_command)
features.add_command(retire)


@features.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(yes: bool) -> None:
    """Delete the state, and let the next worker build it again from what the topics hold.

    For when a worker refuses to go on: a topic was created anew, or records that are needed have left it. Windows that
    reach further back than the topics do are short until they have filled again.
    """
    settings = Settings.load()
    pipeline = load_pipeline(settings.pipeline)
    try:
        topics = Topics(deployed_name(pipeline.name, settings.namespace), definition=settings.definition)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not yes:
        click.confirm(f"Delete the feature state of {topics.deployed} and build it again?", abort=True)
    fingerprint = pipeline.features_fingerprint
    deleted = asyncio.run(reset_state(topics, fingerprint, settings.kafka_bootstrap, settings.redis_url))
    click.echo(f"{topics.deployed}: {deleted} keys deleted; `headrace run features` builds the state again")
