"""`headrace erase`: remove what the feature states keep of one entity."""

from __future__ import annotations

import asyncio

import click

from headrace.cli.errors import UserError
from headrace.features.erasing import Erased, erase_answers
from headrace.features.erasing import erase as erase_entity
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis import connect, require_safe
from headrace.platform.settings import Settings
from headrace.platform.topics import Topics, deployed_name


@click.command()
@click.argument("entity")
@click.argument("entity_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(entity: str, entity_id: str, yes: bool) -> None:
    """Erase what the feature states keep of one ENTITY (a customer, say) with that ID.

    Workers may go on running. Events that were produced before will not enter the state again, neither by a reset nor
    by a backfill; events that come later begin a new history. Which pipeline and where: HEADRACE_PIPELINE, _NAMESPACE,
    _REDIS_URL.
    """
    settings = Settings.load()
    pipeline = load_pipeline(settings.pipeline)
    known = [one.name for one in pipeline.entities]
    if entity not in known:
        raise UserError(f"{entity!r} is not an entity of {pipeline.name}; declared are {', '.join(known)}")
    try:
        topics = Topics(deployed_name(pipeline.name, settings.namespace))
    except ValueError as error:
        raise UserError(str(error)) from error
    if not yes:
        click.confirm(f"Erase {entity} {entity_id} from the feature states of {topics.deployed}?", abort=True)
    position = known.index(entity)
    erased, answers = asyncio.run(_erase(settings.redis_url, topics.deployed, entity, position, entity_id))
    click.echo(
        f"{topics.deployed}: {erased.logs} logs of {entity} {entity_id} erased ({erased.bytes} bytes) in "
        f"{erased.states} states, and {answers} remembered answers"
    )
    click.echo(
        "Not reached: "
        f"{topics.events}, {topics.vectors}, {topics.predictions}, {topics.outcomes} and {topics.rejected} keep "
        "records until their retention is over; logs of other entities hold hashes of event ids, times and numbers, "
        "and no id of this one; models keep what they have learned; spools of gateways "
        "hold answers until these are shipped; training sets and archives are yours to erase."
    )


async def _erase(redis_url: str, deployed: str, entity: str, position: int, entity_id: str) -> tuple[Erased, int]:
    client = connect(redis_url)
    try:
        await require_safe(client)
        erased = await erase_entity(client, deployed, entity, entity_id)
        return erased, await erase_answers(client, deployed, position, entity_id)
    finally:
        await client.aclose()
