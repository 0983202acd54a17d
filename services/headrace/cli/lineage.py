"""`headrace lineage`: what the answer to an event was made of, and what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from headrace.cli.errors import UserError
from headrace.cli.lineage_found import Lineage
from headrace.cli.lineage_trace import Tracer
from headrace.cli.model_catalog import read_catalog
from headrace.cli.models import deployed
from headrace.cli.record_search import RecordSearch
from headrace.pipeline import Pipeline
from headrace.platform.pipelines import load_pipeline
from headrace.platform.settings import Settings
from headrace.platform.topics import Topics

MOST_ID_BYTES = 128


@click.command()
@click.argument("event_id")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--whole", is_flag=True, help="Search the partition to its beginning for more answers to the event.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds that the search of a topic may take.",
)
@click.pass_context
def lineage(context: click.Context, event_id: str, as_json: bool, whole: bool, timeout_s: float) -> None:
    """Trace EVENT_ID: the event, the features used, the model version, what that had learned, its files, the outcome.

    The status is 0 when all of it is known, 1 when something is missing, which is named with the reason, 2 when there
    is no prediction. Which pipeline, namespace and Kafka: HEADRACE_PIPELINE, _NAMESPACE, _KAFKA_BOOTSTRAP; where the
    files are, and the key to verify them: HEADRACE_ARTIFACTS, _SIGNING_PUBLIC_KEY.
    """
    if not event_id or len(event_id.encode()) > MOST_ID_BYTES:
        raise UserError(f"an event id has 1 to {MOST_ID_BYTES} bytes, this one {len(event_id.encode())}")
    settings, topics = deployed()
    found = asyncio.run(
        _trace(settings, topics, load_pipeline(settings.pipeline), event_id, timeout_s=timeout_s, whole=whole)
    )
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        for line in lineage_lines(found.as_json()):
            click.echo(line)
    if found.missing:
        context.exit(1)


async def _trace(
    settings: Settings, topics: Topics, pipeline: Pipeline, event_id: str, *, timeout_s: float, whole: bool
) -> Lineage:
    catalog = await read_catalog(settings.kafka_bootstrap, topics, settings.artifacts, settings.signing_public_key)
    async with RecordSearch(settings.kafka_bootstrap) as search:
        await search.require(topics.events, topics.vectors, topics.predictions, topics.outcomes)
        return await Tracer(search, topics, pipeline, catalog, timeout_s=timeout_s, whole=whole).trace(event_id)


def lineage_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A lineage for a person.

    Args:
        found: as JSON values.
    """
    event, prediction, features = found["event"], found["prediction"], found["features"]
    yield f"event {found['event_id']} at {event['time']}"
    yield f"  in           {event['position'] or 'no topic'}, by {event['channel']}"
    for name, value in event["entities"].items():
        yield f"  {name:12} {value}"
    yield f"prediction {prediction['prediction_id']}"
    yield f"  in           {prediction['position']}, answered {prediction['answered_time']}"
    degraded = f", degraded: {', '.join(prediction['degradations'])}" if prediction["degradations"] else ""
    yield f"  answer       {prediction['decision']}, score {prediction['score']:.6g}{degraded}"
    by = f"version {prediction['model_version']} as {prediction['route']}, epoch {prediction['route_epoch']}"
    yield f"  by           {by}"
    for one in found["others"]:
        yield f"  also         {one['role']} of version {one['model_version']}: {one['score']:.6g} ({one['position']})"
    yield f"features {features['fingerprint']}"
    at = features["evaluated_at"]
    yield f"  state up to  events {_offsets(at['events'])}; outcomes {_offsets(at['outcomes'])}"
    if "vector" in features:
        yield f"  vector       {features['vector']}{', equal' if features['equals_vector'] else ', DIFFERENT'}"
    for name, value in features["values"].items():
        mark = " (overridden by the caller)" if name in features["overridden"] else ""
        yield f"  {name:40} {value:.10g}{mark}"
    yield from _model_lines(found)
    outcome = found["outcome"]
    if outcome is None:
        yield "outcome none yet"
    else:
        yield f"outcome {outcome['kind']}: label {outcome['label']:g}, known {outcome['label_time']}"
        yield f"  in           {outcome['position']}, label {outcome['label_position'] or 'none came'}"
        for recipe, version in outcome["learned_by"].items():
            yield f"  learned by   {recipe}: {version or 'not yet'}"
    for note in found["notes"]:
        yield f"note: {note}"
    for one in found["missing"]:
        yield f"MISSING {one['what']}: {one['why']}"
    yield "complete" if found["complete"] else f"NOT complete: {len(found['missing'])} missing"


def _model_lines(found: Mapping[str, Any]) -> Iterator[str]:
    model = found["model"]
    if model is None:
        return
    state = model["state"] + (f" ({model['route']})" if model["route"] else "")
    yield f"model version {model['version']} of {model['recipe'] or model['recipe_fingerprint'][:12]}, {state} now"
    if model["untrained"]:
        yield "  learned      nothing: the untrained recipe"
    else:
        yield f"  learned      {model['learned_count']:,} outcomes, labels up to {model['model_time']}"
    for one in model["learned"]:
        yield f"    outcomes/{one['partition']}  {one['first']} to {one['end']} (exclusive)"
    ancestors = found["ancestors"]
    if ancestors["count"]:
        yield f"  continues    {ancestors['count']} versions, back to {ancestors['oldest']}"
        newest = ", ".join(one["version"] for one in ancestors["newest"])
        yield f"               {newest}{', …' if ancestors['count'] > len(ancestors['newest']) else ''}"
    for name, one in model["artifacts"].items():
        yield f"  {name:12} SHA-256 {one['sha256']}"
        yield f"               {one['uri']}: file {one['file']}, signature {one['signature']}"


def _offsets(positions: list[int]) -> str:
    """The last offset of each partition; - where nothing was there yet."""
    return "/".join("-" if one < 0 else str(one) for one in positions) or "not known"
