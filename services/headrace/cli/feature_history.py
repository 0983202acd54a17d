"""`headrace features compute` and `headrace features parity`: features over a whole history."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import tempfile
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headrace.cli.errors import UserError
from headrace.cli.progress_bar import ProgressBar
from headrace.pipeline import Pipeline
from headrace.pipeline.state import compile_plan
from headrace.platform.pipelines import load_pipeline
from headrace.platform.settings import Settings
from headrace.platform.topics import Topics, deployed_name

if TYPE_CHECKING:
    from headrace.offline.computation import EventSource, LabelSource
    from headrace.offline.served_parity import ServedParity
    from headrace.offline.served_vectors import ServedVectors

T = TypeVar("T")

TOPIC = "topic"
SHOWN = 10
SOURCE = "a .parquet file or `topic`"


@click.command()
@click.option("--from", "source", required=True, metavar="FILE|topic", help="Events: a Parquet file, or `topic`.")
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The Parquet file to write.")
@click.option("--labels", metavar="FILE|topic", help="Labels: a Parquet file, or `topic` for the outcomes.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one for each processor]")
def compute(source: str, to: Path, labels: str | None, workers: int | None) -> None:
    """Compute the features of a whole history as of each event's own time: a training set.

    Columns of the events: event_id, event_time (a timestamp, or int64 microseconds) and the fields of the pipeline's
    schema by name. Columns of the labels: event_id, label (0 or 1), label_time: a label counts in features from its
    time on. `topic` reads what the deployed pipeline has, up to now: `events`, and `outcomes` for the labels.

    The output has event_id, event_time, the ids of the entities, every feature and, with labels, label and label_time,
    in the order of the input (of a topic: partition and offset).
    """
    _prepare("compute")
    from headrace.offline.training_set import BLOCK_ROWS, compute_training_set

    settings = Settings.load()
    pipeline = load_pipeline(settings.pipeline)
    topics = _topics(settings, pipeline)
    if to.suffix != ".parquet":
        raise UserError(f"--to {to}: the name must end in .parquet")
    if not to.parent.is_dir():
        raise UserError(f"--to {to}: there is no folder {to.parent}")
    with tempfile.TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as scratch:
        events = _events(source, pipeline, settings.kafka_bootstrap, topics, Path(scratch), BLOCK_ROWS)
        known = _labels(labels, pipeline, settings.kafka_bootstrap, topics, Path(scratch), BLOCK_ROWS)
        with ProgressBar("computing") as bar:
            done = compute_training_set(
                pipeline, settings.pipeline, events, known, to, workers=workers, progress=bar.reached
            )
    left_out = f"; {done.repeated:,} left out, whose id an earlier one has" if done.repeated else ""
    click.echo(f"{to}: {done.rows:,} events with {len(pipeline.feature_names)} features{left_out}")
    if known is not None:
        unmatched = f"; {done.unmatched_labels:,} labels of no event" if done.unmatched_labels else ""
        click.echo(f"{done.labelled:,} of them with a label{unmatched}")


@click.command()
@click.option(
    "--served",
    default="vectors",
    show_default=True,
    metavar="vectors|predictions|FILE",
    help="What was served: a topic of the deployed pipeline, or a Parquet file.",
)
@click.option(
    "--from",
    "source",
    default=TOPIC,
    show_default=True,
    metavar="FILE|topic",
    help="Events: a Parquet file, or `topic`.",
)
@click.option("--labels", default=None, metavar="FILE|topic", help="Labels; with a file of events, its file or none.")
@click.option("--tolerance", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Difference allowed.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes, for a file.  [default: one for each processor]")
@click.pass_context
def parity(
    context: click.Context, served: str, source: str, labels: str | None, tolerance: float, workers: int | None
) -> None:
    """Compare the features that were served with their recomputation, feature by feature.

    From the topics, each vector is recomputed at the state positions that it recorded. A file of events (as for
    `compute`) gives no positions: then everything is taken as known, as in a lockstep replay. A file of vectors has
    event_id, every feature and, where they are known, event_positions and outcome_positions (lists of offsets).

    The status is 0 when all are equal, 1 when one differs, 2 when the comparison cannot be made. Everything that is
    compared is held in memory, about 1 KB for each event of a topic.
    """
    _prepare("parity")
    settings = Settings.load()
    pipeline = load_pipeline(settings.pipeline)
    topics = _topics(settings, pipeline)
    if source == TOPIC and labels not in (None, TOPIC):
        raise UserError(f"--labels {labels}: allowed with --from topic is topic")
    found = _served(served, pipeline, settings.kafka_bootstrap, topics)
    if source == TOPIC:
        result = _measured(found, pipeline, settings.kafka_bootstrap, topics, tolerance)
    else:
        result = _measured_from_file(found, settings, pipeline, topics, source, labels, tolerance, workers)
    if not result.parity.rows_compared:
        reasons = "".join(f"; {count:,} {why}" for why, count in result.left_out.most_common())
        raise UserError(f"--served {served}: there are no vectors to compare{reasons}")
    _say_parity(result)
    context.exit(1 if result.parity.rows_different else 0)


def _served(served: str, pipeline: Pipeline, bootstrap: str, topics: Topics) -> ServedVectors:
    from headrace.offline.parquet_file import ParquetFile
    from headrace.offline.served_vectors import read_file, read_predictions, read_vectors

    if served == "vectors":
        with ProgressBar(f"reading {topics.vectors}") as bar:
            return _run(read_vectors(bootstrap, topics, pipeline, bar.reached))
    if served == "predictions":
        with ProgressBar(f"reading {topics.predictions}") as bar:
            return _run(read_predictions(bootstrap, topics, pipeline, bar.reached))
    if not served.endswith(".parquet"):
        raise UserError(f"--served {served}: allowed is vectors, predictions or a .parquet file")
    return read_file(ParquetFile(Path(served)), pipeline)


def _measured(
    served: ServedVectors, pipeline: Pipeline, bootstrap: str, topics: Topics, tolerance: float
) -> ServedParity:
    from headrace.offline.served_parity import measure
    from headrace.offline.topic_histories import read_event_history, read_label_history

    with ProgressBar(f"reading {topics.events}") as bar:
        events = _run(read_event_history(bootstrap, topics, pipeline, bar.reached))
    _say_rejected(topics.events, events.rejected)
    with ProgressBar(f"reading {topics.outcomes}") as bar:
        labels = _run(read_label_history(bootstrap, topics, pipeline, bar.reached))
    with ProgressBar("recomputing") as bar:
        return measure(compile_plan(pipeline), served, events, labels, tolerance=tolerance, progress=bar.reached)


def _measured_from_file(
    served: ServedVectors,
    settings: Settings,
    pipeline: Pipeline,
    topics: Topics,
    source: str,
    labels: str | None,
    tolerance: float,
    workers: int | None,
) -> ServedParity:
    from headrace.offline.served_parity import measure_against
    from headrace.offline.training_set import BLOCK_ROWS, compute_training_set

    with tempfile.TemporaryDirectory(prefix="headrace-parity-") as scratch:
        folder, bootstrap = Path(scratch), settings.kafka_bootstrap
        events = _events(source, pipeline, bootstrap, topics, folder, BLOCK_ROWS)
        known = _labels(labels, pipeline, bootstrap, topics, folder, BLOCK_ROWS)
        with ProgressBar("recomputing") as bar:
            to = folder / "recomputed.parquet"
            compute_training_set(pipeline, settings.pipeline, events, known, to, workers=workers, progress=bar.reached)
        return measure_against(pipeline, served, to, tolerance=tolerance)


def _say_parity(result: ServedParity) -> None:
    compared = result.parity
    width = max(map(len, (one.name for one in compared.features)), default=0)
    click.echo(f"{'feature':{width}}  {'different':>12}  {'max difference':>14}")
    for one in compared.features:
        click.echo(f"{one.name:{width}}  {one.rows_different:12,}  {one.max_abs_error:14.6g}")
    click.echo(f"{compared.rows_compared:,} vectors compared, {compared.rows_different:,} different")
    for why, count in result.left_out.most_common():
        click.echo(f"left out: {count:,} {why}")
    if result.different:
        more = f" and {len(result.different) - SHOWN:,} more" if len(result.different) > SHOWN else ""
        click.echo(f"different: {', '.join(result.different[:SHOWN])}{more}")


def _events(
    source: str, pipeline: Pipeline, bootstrap: str, topics: Topics, scratch: Path, file_rows: int
) -> EventSource:
    from headrace.offline.event_table import EventFile
    from headrace.offline.parquet_file import ParquetFile
    from headrace.offline.topic_tables import read_events

    if source != TOPIC:
        events = EventFile(ParquetFile(_file("--from", source)), pipeline.event)
        events.check()
        return events
    with ProgressBar(f"reading {topics.events}") as bar:
        table = _run(read_events(bootstrap, topics, pipeline, scratch, file_rows, bar.reached))
    _say_rejected(topics.events, table.rejected)
    return table


def _labels(
    source: str | None, pipeline: Pipeline, bootstrap: str, topics: Topics, scratch: Path, file_rows: int
) -> LabelSource | None:
    from headrace.offline.label_table import LabelFile
    from headrace.offline.parquet_file import ParquetFile
    from headrace.offline.topic_tables import read_labels

    if source is None:
        return None
    if source != TOPIC:
        labels = LabelFile(ParquetFile(_file("--labels", source)), pipeline.label)
        labels.check()
        return labels
    with ProgressBar(f"reading {topics.outcomes}") as bar:
        table = _run(read_labels(bootstrap, topics, pipeline, scratch, file_rows, bar.reached))
    _say_rejected(topics.outcomes, table.rejected)
    return table


def _file(option: str, text: str) -> Path:
    if not text.endswith(".parquet"):
        raise UserError(f"{option} {text}: allowed is {SOURCE}")
    return Path(text)


def _say_rejected(topic: str, rejected: Counter[str]) -> None:
    if rejected:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in rejected.most_common())
        click.echo(f"{topic}: {rejected.total():,} records skipped, as the stream does: {reasons}")


def _topics(settings: Settings, pipeline: Pipeline) -> Topics:
    try:
        return Topics(deployed_name(pipeline.name, settings.namespace), definition=settings.definition)
    except ValueError as error:
        raise UserError(str(error)) from error


def _prepare(verb: str) -> None:
    if importlib.util.find_spec("polars") is None:
        raise UserError(
            f"`headrace features {verb}` needs polars, which is not installed: pip install headrace[offline]"
        )


def _run(reading: Coroutine[Any, Any, T]) -> T:
    # A fault of Kafka is said in one line, not a second time by the library that met it.
    for library in ("aiokafka", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    return asyncio.run(reading)
