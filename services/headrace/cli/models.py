"""`headrace models`: what was learned, what serves, how versions differ, and going back."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.errors import UserError
from headrace.cli.model_catalog import (
    Catalog,
    list_records,
    read_catalog,
    version_as_json,
    way_into_traffic,
)
from headrace.cli.model_diff import compare, difference_lines
from headrace.cli.model_serving import gateways_using, servers_holding
from headrace.cli.text_table import age, table_lines
from headrace.platform.leases import Leases
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis import connect
from headrace.platform.settings import Settings
from headrace.platform.topics import Topics, deployed_name
from headrace.v1.model_pb2 import ModelVersion

if TYPE_CHECKING:
    from headrace.rollout.operating import Effect

JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.group()
def models() -> None:
    """Versions of a pipeline's models. Which pipeline, namespace and Kafka: HEADRACE_PIPELINE, _NAMESPACE,
    _KAFKA_BOOTSTRAP; where the files are, and the key to verify them: HEADRACE_ARTIFACTS, _SIGNING_PUBLIC_KEY.
    """


@models.command(name="list")
@click.option("--all", "everything", is_flag=True, help="Also those whose lineage alone is kept.")
@click.option("--recipe", default="", help="Only versions of this recipe.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_models(everything: bool, recipe: str, limit: int, as_json: bool) -> None:
    """List the versions, oldest first: state, age, recipe, quality, and whether the file is there and whole.

    live: answers, or is scored beside the answers; previous: an earlier champion that is still loaded; candidate: may
    still come into traffic; refused: failed its checks; withdrawn: was rolled back; retired: a newer one came after it.
    """
    _, _, catalog = _catalog()
    versions = list(catalog.versions.values()) + (list_records(catalog) if everything else [])
    versions = [one for one in versions if recipe in ("", one.recipe)]
    versions = sorted(versions, key=lambda one: int(one.version))
    shown = versions[-limit:]
    if as_json:
        for one in shown:
            click.echo(json.dumps(_as_json(catalog, one)))
        return
    if not versions:
        click.echo(f"{catalog.deployed} has no versions" + (f" of recipe {recipe}" if recipe else ""))
        return
    for line in table_lines(_rows(catalog, shown)):
        click.echo(line)
    if len(shown) < len(versions):
        click.echo(f"{len(versions)} versions; the newest {limit} are shown")
    if catalog.artifacts.key_problem:
        click.echo(f"signatures are not checked: {catalog.artifacts.key_problem}", err=True)


@models.command()
@click.argument("version")
@JSON
def show(version: str, as_json: bool) -> None:
    """Show all that is known of VERSION: lineage, metrics, files and their signatures, and where it serves."""
    settings, topics, catalog = _catalog()
    found = catalog.get(version)
    shown = _as_json(catalog, found, every_file=True)
    shown["serving"] = asyncio.run(_serving(settings, topics, found.version))
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    for line in _shown_lines(shown):
        click.echo(line)


@models.command()
@click.argument("first")
@click.argument("second")
@JSON
def diff(first: str, second: str, as_json: bool) -> None:
    """Show how the versions FIRST and SECOND differ: metrics, outcomes learned, model, and scores on recent rows.

    The recent rows are those that the snapshot of SECOND keeps, up to 256 that it learned last.
    """
    _, _, catalog = _catalog()
    found = compare(catalog.get(first), catalog.get(second), catalog.artifacts)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for line in difference_lines(found):
        click.echo(line)


@models.command()
@click.option("--to", "version", default="", metavar="VERSION", help="An earlier champion. [the one before this one]")
@click.option("--by", default="", help="Who asks for it; user and host where not given.")
@click.option("--reason", default="", help="Why; kept in the route log.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 3600), default=30.0, show_default=True)
@JSON
def rollback(version: str, by: str, reason: str, timeout_s: float, as_json: bool) -> None:
    """Let an earlier champion answer again, at once. Refreshes are frozen until `headrace route unfreeze`.

    The rollout carries it out; the command returns when every live gateway uses the version.
    """
    from google.protobuf.json_format import MessageToDict

    from headrace.cli.route import said
    from headrace.rollout.operating import give, new_command
    from headrace.v1.route_pb2 import Rollback

    settings, topics = deployed()
    command = new_command(by, reason, "", timeout_s)
    command.rollback.CopyFrom(Rollback(version=version.zfill(6) if version.isdecimal() else version))

    async def ask() -> Effect:
        client = connect(settings.redis_url)
        try:
            return await give(
                command, settings.kafka_bootstrap, topics, Leases(client, topics.deployed), timeout_s=timeout_s
            )
        finally:
            await client.aclose()

    effect = asyncio.run(ask())
    if as_json:
        change = MessageToDict(effect.change, preserving_proto_field_name=True)
        click.echo(
            json.dumps({"changed": effect.changed, "gateways": len(effect.gateways), "change": change}, indent=2)
        )
    else:
        click.echo(said(effect))


def _catalog() -> tuple[Settings, Topics, Catalog]:
    settings, topics = deployed()
    found = asyncio.run(read_catalog(settings.kafka_bootstrap, topics, settings.artifacts, settings.signing_public_key))
    return settings, topics, found


def deployed() -> tuple[Settings, Topics]:
    """Settings and topics of the pipeline that the environment names."""
    # A fault of Kafka is said in one line here, not a second time by the library that met it.
    for library in ("aiokafka", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    settings = Settings.load()
    try:
        name = deployed_name(load_pipeline(settings.pipeline).name, settings.namespace)
        return settings, Topics(name, definition=settings.definition)
    except ValueError as error:
        raise UserError(str(error)) from error


def _as_json(catalog: Catalog, version: ModelVersion, *, every_file: bool = False) -> dict[str, Any]:
    state, route = catalog.state(version)
    files = catalog.artifacts.files(version) if every_file else {"onnx": catalog.artifacts.look(version.onnx)}
    shown = version_as_json(version) | {
        "state": state,
        "route": route or None,
        "age_s": round(max(time.time() - version.created_time_us / 1e6, 0), 3) if version.created_time_us else None,
        "artifacts": {name: one.as_json() for name, one in files.items()},
    }
    if state == "refused":
        shown["refused"] = catalog.alerts[version.version].detail
    return shown


def _rows(catalog: Catalog, versions: list[ModelVersion]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("VERSION", "STATE", "AGE", "RECIPE", "BY", "LEARNED", "METRICS", "FILE")]
    now_us = time.time() * 1e6
    for one in versions:
        state, route = catalog.state(one)
        rows.append(
            (
                one.version,
                f"{state} ({route})" if route else state,
                age(now_us - one.created_time_us) if one.created_time_us else "-",
                one.recipe or one.recipe_fingerprint[:12],
                way_into_traffic(one),
                "untrained" if one.untrained else f"{one.learned_count:,}",
                _metrics(one),
                _file(catalog, one),
            )
        )
    return rows


def _metrics(version: ModelVersion) -> str:
    shown = ("rolling_log_loss", "rolling_mean_absolute_error", "rolling_auc", "rolling_average_precision")
    names = {"rolling_log_loss": "loss", "rolling_mean_absolute_error": "error", "rolling_auc": "auc"}
    return " ".join(
        f"{names.get(name, 'ap')} {version.metrics[name]:.4f}" for name in shown if name in version.metrics
    ) or ("-")


def _file(catalog: Catalog, version: ModelVersion) -> str:
    found = catalog.artifacts.look(version.onnx)
    if found.file != "ok":
        return found.file
    return {"verified": "ok, signed", "wrong": "ok, SIGNATURE WRONG", "not checked": "ok"}[found.signature]


async def _serving(settings: Settings, topics: Topics, version: str) -> dict[str, Any]:
    return {
        "gateways": await gateways_using(settings.redis_url, topics.deployed, version),
        "triton": await servers_holding(settings.triton_urls, f"{topics.deployed}-{version}"),
    }


def _shown_lines(shown: dict[str, Any]) -> list[str]:
    state = shown["state"] + (f" ({shown['route']})" if shown["route"] else "")
    kind = "challenger" if shown["challenger"] else "champion recipe"
    learned = "nothing" if shown["untrained"] else f"{shown['learned_count']:,} outcomes"
    lines = [
        f"version {shown['version']} of {shown['pipeline']}: {state}",
        f"  recipe       {shown['recipe'] or '-'} ({kind}), {shown['recipe_fingerprint']}",
        f"  into traffic by {shown['way_into_traffic']}",
        f"  parent       {shown['parent'] or 'none'}" + (f", from {shown['origin']}" if shown["origin"] else ""),
        f"  made         {shown['created_time'] or '-'} by learner epoch {shown['learner_epoch']}",
        f"  learned      {learned}, labels up to {shown['model_time'] or '-'}",
    ]
    lines += [
        f"    outcomes/{one['partition']}  {one['first']} to {one['end']} (exclusive)" for one in shown["learned"]
    ]
    lines += [f"  merged from  shard {one['shard']}, {one['learned_count']:,} outcomes" for one in shown["shards"]]
    lines += [f"  without      shard {one}, which was not waited for" for one in shown["missing_shards"]]
    lines.append(f"  features     {len(shown['feature_names'])}, fingerprint {shown['features_fingerprint']}")
    lines += [f"  {name:26} {value:.6g}" for name, value in shown["metrics"].items()]
    for name, one in shown["artifacts"].items():
        lines.append(f"  {name:9} {one['uri']} ({one['size_bytes']:,} bytes)")
        lines.append(f"            SHA-256 {one['sha256']}: file {one['file']}, signature {one['signature']}")
    if "refused" in shown:
        lines.append(f"  refused      {shown['refused']}")
    lines += [f"  gateways     {shown['serving']['gateways']['said']}"]
    lines += [f"  triton       {one['url']}: {one['said']}" for one in shown["serving"]["triton"]]
    return lines
