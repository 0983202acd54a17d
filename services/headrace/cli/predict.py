"""`headrace predict`: ask a gateway for a prediction from the command line."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import click
from google.protobuf import json_format

from headrace.cli.errors import UserError
from headrace.client import CallError, EventInput, PredictionClient
from headrace.client.targets import DEFAULT_TARGET
from headrace.client.thread_client import DEFAULT_TIMEOUT_S


@click.command()
@click.argument("fields", nargs=-1, metavar="FIELD...")
@click.option("--event-id", required=True, help="Id of the event; the same id again gets the first answer again.")
@click.option("--time", "time_text", default="", help="When it happened, ISO 8601 with a zone.  [default: now]")
@click.option("--target", default=DEFAULT_TARGET, show_default=True, help="gRPC address of the gateway.")
@click.option("--pipeline", default="", help="Deployed pipeline name, where the gateway should be held to one.")
@click.option("--ingest", is_flag=True, help="Also append the event to the pipeline's events.")
@click.option("--explain", is_flag=True, help="Show the features that the model was given.")
@click.option("--override", "overrides", multiple=True, metavar="FEATURE=NUMBER", help="Use this value for a feature.")
@click.option("--model-version", default="", help="Use this version instead of the routed one.")
@click.option("--features-only", is_flag=True, help="Show the features without scoring.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), default=DEFAULT_TIMEOUT_S, show_default=True
)
def predict(
    fields: tuple[str, ...],
    event_id: str,
    time_text: str,
    target: str,
    pipeline: str,
    ingest: bool,
    explain: bool,
    overrides: tuple[str, ...],
    model_version: str,
    features_only: bool,
    timeout_s: float,
) -> None:
    """Score one event and print the answer as JSON.

    A text field is NAME=VALUE, a number or a boolean NAME:=VALUE. For example:

    headrace predict --event-id p1 customer_id=17 terminal_id=3 amount_cents:=1299
    """
    event = EventInput(event_id, _time(time_text), dict(_field(text) for text in fields))
    try:
        with PredictionClient(target, pipeline=pipeline, timeout_s=timeout_s) as client:
            answer: Any
            if features_only:
                answer = client.features(event)
            else:
                answer = client.predict(
                    event,
                    ingest=ingest,
                    explain=explain,
                    overrides={name: _number(name, text) for name, text in _pairs(overrides)},
                    model_version=model_version,
                )
    except CallError as error:
        lines = [f"{one.field}: {one.description}" for one in error.violations]
        raise UserError("\n".join(lines) if lines else f"gateway at {target}: {error}") from error
    click.echo(json_format.MessageToJson(answer, preserving_proto_field_name=True))


def _pairs(texts: tuple[str, ...]) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise UserError(f"{text!r} is not NAME=VALUE")
        pairs.append((name, value))
    return pairs


def _field(text: str) -> tuple[str, str | float | bool]:
    name, separator, value = text.partition("=")
    if not separator or not name.removesuffix(":"):
        raise UserError(f"{text!r} is not a field: text is NAME=VALUE, a number or boolean NAME:=VALUE")
    if not name.endswith(":"):
        return name, value
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = None
    if not isinstance(parsed, int | float):
        raise UserError(f"{text!r}: {value!r} is not a number, true or false; text is NAME=VALUE")
    return name[:-1], parsed


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--override {name}={text}: {text!r} is not a number") from None


def _time(text: str) -> dt.datetime:
    if not text:
        return dt.datetime.now(dt.UTC)
    try:
        time = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"--time {text!r} is not an ISO 8601 time, for example 2026-01-31T12:00:00Z") from None
    if time.tzinfo is None:
        raise UserError(f"--time {text!r} has no zone; add Z for UTC")
    return time
