"""`headrace predict`: ask a gateway for predictions from the command line."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from google.protobuf import json_format

from headrace.cli.errors import UserError
from headrace.cli.event_files import STANDARD_INPUT, format_of, read_events, time_of
from headrace.cli.gateway_options import gateway_options
from headrace.cli.predict_files import by_batches, by_stream
from headrace.cli.predict_output import writer
from headrace.client import CallError, CallOptions, EventInput, InvalidInputError, PredictionClient


@click.command()
@click.argument("fields", nargs=-1, metavar="[FIELD]...")
@click.option("--event-id", default="", help="Id of the event; the same id again gets the first answer again.")
@click.option("--time", "time_text", default="", help="When it happened, ISO 8601 with a zone.  [default: now]")
@click.option("--input", "source", default="", metavar="FILE", help="Score the events of a file; - is standard input.")
@click.option(
    "--format", "form", type=click.Choice(["jsonl", "csv", "parquet"]), help="Of the file.  [default: by name]"
)
@click.option("--id-column", default="event_id", show_default=True, help="Has the event ids, in a file.")
@click.option("--time-column", default="event_time", show_default=True, help="Has the event times, in a file.")
@click.option(
    "--stream/--batches",
    default=None,
    help="Send the events of a file one by one, or many in a call.  [default: one by one from standard input]",
)
@click.option("--output", default="-", metavar="FILE", help="Write the answers to a file's events there.")
@click.option("--output-format", "shown", type=click.Choice(["table", "jsonl", "csv"]), help="Of these answers.")
@click.option("--ingest", is_flag=True, help="Also append the event to the pipeline's events.")
@click.option("--explain", is_flag=True, help="Show the features that the model was given.")
@click.option("--override", "overrides", multiple=True, metavar="FEATURE=NUMBER", help="Use this value for a feature.")
@click.option("--model-version", default="", help="Use this version instead of the routed one.")
@click.option("--features-only", is_flag=True, help="Show the features without scoring.")
@gateway_options
def predict(
    fields: tuple[str, ...],
    event_id: str,
    time_text: str,
    source: str,
    form: str | None,
    id_column: str,
    time_column: str,
    stream: bool | None,
    output: str,
    shown: str | None,
    ingest: bool,
    explain: bool,
    overrides: tuple[str, ...],
    model_version: str,
    features_only: bool,
    client: Callable[[], PredictionClient],
    target: str,
) -> None:
    """Score one event, or the events of a file.

    One event is printed as JSON. A text field is NAME=VALUE, a number or a boolean NAME:=VALUE:

    headrace predict --event-id p1 customer_id=17 terminal_id=3 amount_cents:=1299

    A file has one event in a row: JSON lines, CSV with a head, or Parquet. An event without an answer is one line on
    standard error. The exit status is 0 where each event has its answer, 1 where some have none, 2 for all else.

    headrace predict --input payments.csv --output scores.csv
    """
    asked = CallOptions(
        ingest=ingest,
        explain=explain,
        overrides={name: _number(name, text) for name, text in _pairs(overrides)},
        model_version=model_version,
    )
    try:
        if source:
            if fields or event_id or time_text or features_only:
                raise UserError("--input does not go with FIELD, --event-id, --time and --features-only")
            through = stream if stream is not None else source == STANDARD_INPUT
            columns = (id_column, time_column)
            _many(client, source, format_of(source, form or ""), columns, through, output, shown, asked)
        elif not event_id:
            raise UserError("--event-id is needed for one event, --input for a file of events")
        else:
            event = EventInput(event_id, _time(time_text), dict(_field(text) for text in fields))
            with client() as calling:
                answer: Any = calling.features(event) if features_only else calling.predict(event, **asked)
            click.echo(json_format.MessageToJson(answer, preserving_proto_field_name=True))
    except InvalidInputError as error:
        raise UserError("\n".join(f"{one.field}: {one.description}" for one in error.violations)) from error
    except CallError as error:
        lines = [f"{one.field}: {one.description}" for one in error.violations]
        raise UserError("\n".join(lines) if lines else f"gateway at {target}: {error}") from error


def _many(
    client: Callable[[], PredictionClient],
    source: str,
    form: str,
    columns: tuple[str, str],
    stream: bool,
    output: str,
    shown: str | None,
    asked: CallOptions,
) -> None:
    with client() as calling, _opened(output) as file:
        schema = calling.fetch_schema()
        write = writer(shown or _form_of(output, file), file)
        rows = read_events(source, form, schema, *columns)
        score = by_stream if stream else by_batches
        try:
            tally = score(calling, rows, asked, write, lambda line: click.echo(f"error: {line}", err=True))
        except KeyboardInterrupt:
            raise click.Abort from None
        except BrokenPipeError:
            # Who read the answers has gone; Python must not try to flush them at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(1) from None
    click.echo(str(tally), err=True)
    if tally.refused:
        raise click.exceptions.Exit(1)


def _opened(output: str) -> Any:
    if output == "-":
        return click.open_file("-", "w")
    try:
        return Path(output).open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(f"--output {output} cannot be written: {error.strerror}") from error


def _form_of(output: str, file: Any) -> str:
    if output == "-":
        return "table" if file.isatty() else "jsonl"
    return "csv" if Path(output).suffix.lower() == ".csv" else "jsonl"


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


def _time(text: str) -> dt.datetime | int:
    if not text:
        return dt.datetime.now(dt.UTC)
    try:
        return time_of(text)
    except ValueError as error:
        raise UserError(f"--time {error}") from None
