"""`headrace route`: which model versions answer, and changing it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import click
from google.protobuf.json_format import MessageToDict

from headrace.cli.errors import UserError
from headrace.cli.route_output import lines
from headrace.platform.leases import GatewayLease, Leases
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis import RedisUnavailable, connect
from headrace.platform.route_reading import open_route_tables
from headrace.platform.settings import Settings
from headrace.platform.topics import Topics, deployed_name
from headrace.rollout.operating import Effect, give, new_command
from headrace.rollout.triton import TritonError, TritonServer
from headrace.v1 import route_pb2

STAGES = {
    "shadow": route_pb2.ROUTE_STAGE_SHADOW,
    "canary": route_pb2.ROUTE_STAGE_CANARY,
    "champion": route_pb2.ROUTE_STAGE_CHAMPION,
}
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.group()
def route() -> None:
    """Which model versions answer, and changing it. Which pipeline and where: HEADRACE_PIPELINE, _NAMESPACE,
    _KAFKA_BOOTSTRAP, _REDIS_URL, _TRITON_URLS.

    A command returns when every live gateway uses what it led to, or says in one line why it does not.
    """


def _given(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every command that changes something."""
    for option in (
        click.option("--timeout", "timeout_s", type=click.FloatRange(1, 3600), default=30.0, show_default=True),
        click.option("--id", "command_id", default="", help="Id of the command: given twice, it is carried out once."),
        click.option("--by", default="", help="Who gives it; user and host where not given."),
        click.option("--reason", default="", help="Why; kept in the route log."),
    ):
        command = option(command)
    return command


@route.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--changes", type=click.IntRange(0, 50), default=10, show_default=True, help="How many changes to show.")
def show(as_json: bool, changes: int) -> None:
    """Show the table: versions, shares, shadows, epoch, who uses it, what each Triton has, and what changed."""
    settings, topics = _deployed()

    async def ask() -> tuple[Any, list[GatewayLease] | None, dict[str, frozenset[str] | None]]:
        async with open_route_tables(settings.kafka_bootstrap, topics) as tables:
            table = await tables.newest()
        loaded = await asyncio.gather(*(_loaded(url, topics.deployed) for url in settings.triton_urls))
        return (
            table,
            await _with_leases(settings, topics, _leases),
            dict(zip(settings.triton_urls, loaded, strict=True)),
        )

    table, leases, loaded = asyncio.run(ask())
    if table is None:
        raise UserError(f"{topics.deployed} has no route table yet: no version has come into traffic")
    if as_json:
        shown = MessageToDict(table, preserving_proto_field_name=True)
        shown["gateways"] = [
            {"instance": one.instance, "epoch": one.epoch, "versions": sorted(one.versions)} for one in leases or ()
        ]
        shown["triton"] = {url: None if names is None else sorted(names) for url, names in loaded.items()}
        click.echo(json.dumps(shown, indent=2))
        return
    for line in lines(table, leases, loaded, changes):
        click.echo(line)


@route.command(name="set")
@click.option("--canary", default="", metavar="VERSION", help="Canary: a version, or a recipe's newest.")
@click.option("--share", type=SHARE, default=None, help="Share of the entities that the canary answers.")
@click.option("--no-canary", is_flag=True, help="Take the canary away.")
@click.option(
    "--shadow", "shadows", multiple=True, metavar="VERSION", help="Shadow, instead of those there; repeatable."
)
@click.option("--no-shadows", is_flag=True, help="Take all shadows away.")
@click.option("--pin", default="", metavar="VERSION", help="Champion that stays: refreshes are frozen.")
@_given
def set_routes(
    canary: str,
    share: float | None,
    no_canary: bool,
    shadows: tuple[str, ...],
    no_shadows: bool,
    pin: str,
    **given: Any,
) -> None:
    """Change single routes; what is not named stays as it is."""
    action = route_pb2.SetRoutes(
        canary=canary, remove_canary=no_canary, shadows=shadows, remove_shadows=no_shadows, pin=pin
    )
    if share is not None:
        action.canary_share = share
    _give(given, set=action)


@route.command()
@click.argument("version")
@click.option(
    "--to", "stage", type=click.Choice(list(STAGES)), default=None, help="Where to; the next stage if not given."
)
@click.option("--share", type=SHARE, default=None, help="Share of the entities at the stage of a canary.")
@_given
def promote(version: str, stage: str | None, share: float | None, **given: Any) -> None:
    """Take VERSION, of another recipe than the champion's, a stage further: shadow, canary, champion.

    VERSION is a version, or the name of a recipe: its version that has a stage, else its newest.
    """
    action = route_pb2.Promote(version=version, canary_share=share or 0.0)
    if stage is not None:
        action.stage = STAGES[stage]
    _give(given, promote=action)


@route.command()
@click.argument("version", default="")
@_given
def rollback(version: str, **given: Any) -> None:
    """Put the champion before this one back, or VERSION. Refreshes are frozen until `unfreeze`."""
    _give(given, rollback=route_pb2.Rollback(version=version))


@route.command()
@_given
def freeze(**given: Any) -> None:
    """Stop refreshes: no route changes by itself until `unfreeze`."""
    _give(given, freeze=route_pb2.FreezeRefreshes())


@route.command()
@_given
def unfreeze(**given: Any) -> None:
    """Allow refreshes again, and clear the alert if a guard rail had stopped them."""
    _give(given, unfreeze=route_pb2.UnfreezeRefreshes())


def _give(given: dict[str, Any], **action: Any) -> None:
    settings, topics = _deployed()
    timeout_s: float = given["timeout_s"]
    command = new_command(given["by"], given["reason"], given["command_id"], timeout_s)
    for name, value in action.items():
        getattr(command, name).CopyFrom(value)

    async def ask(leases: Leases) -> Effect:
        return await give(command, settings.kafka_bootstrap, topics, leases, timeout_s=timeout_s)

    click.echo(said(asyncio.run(_with_leases(settings, topics, ask))))


def said(effect: Effect) -> str:
    """What a command did, in one line."""
    change, table = effect.change, effect.table
    if not effect.changed:
        return f"nothing changed: {change.detail}"
    kind = route_pb2.RouteChangeKind.Name(change.kind).removeprefix("ROUTE_CHANGE_KIND_").lower().replace("_", " ")
    count = len(effect.gateways)
    by = "no gateway is live" if not count else f"used by {'the gateway' if count == 1 else f'all {count} gateways'}"
    frozen = "; refreshes are frozen" if table.HasField("frozen") else ""
    replaced = f" for {change.replaced}" if change.replaced else ""
    return f"{kind} {change.version}{replaced}: epoch {change.epoch}, {by}, {effect.seconds:.2f} s{frozen}"


async def _with_leases(settings: Settings, topics: Topics, ask: Callable[[Leases], Coroutine[Any, Any, Any]]) -> Any:
    client = connect(settings.redis_url)
    try:
        return await ask(Leases(client, topics.deployed))
    finally:
        await client.aclose()


async def _leases(leases: Leases) -> list[GatewayLease] | None:
    try:
        return await leases.read()
    except RedisUnavailable:
        return None


async def _loaded(url: str, deployed: str) -> frozenset[str] | None:
    """Versions of this pipeline that a server has; None while it does not answer."""
    server = TritonServer(url)
    try:
        names = await server.ready_models()
    except TritonError:
        return None
    finally:
        await server.close()
    prefix = f"{deployed}-"
    return frozenset(
        one.removeprefix(prefix) for one in names if one.startswith(prefix) and "-" not in one[len(prefix) :]
    )


def _deployed() -> tuple[Settings, Topics]:
    settings = Settings.load()
    try:
        return settings, Topics(deployed_name(load_pipeline(settings.pipeline).name, settings.namespace))
    except ValueError as error:
        raise UserError(str(error)) from error
