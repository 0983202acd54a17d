"""A history for a pipeline that is not live yet: its events, its labels, and the labelled rows in learning order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.offline.errors import TableError
from headrace.offline.event_table import EVENT_ID, EventFile
from headrace.offline.label_table import LABEL, LABEL_TIME, LabelFile
from headrace.offline.parquet_file import ParquetFile
from headrace.pipeline import EventSchema, Pipeline

BATCH_ROWS = 10_000
FORMATS = (".parquet", ".csv")


@dataclass(frozen=True)
class BootstrapFiles:
    """A history as Parquet files.

    Attributes:
        events: of the events.
        labels: of the labels.
    """

    events: Path
    labels: Path


@dataclass(frozen=True)
class LabelledRows:
    """Events with their features and labels.

    Attributes:
        rows: float32 [n, features].
        labels: bool [n], or float64 where they are numbers.
        event_ids: n.
        label_times_us: int64 [n], microseconds since 1970-01-01 UTC.
    """

    rows: npt.NDArray[np.float32]
    labels: npt.NDArray[np.bool_] | npt.NDArray[np.float64]
    event_ids: list[str]
    label_times_us: npt.NDArray[np.int64]


def bootstrap_files(source: Path, labels: Path | None, schema: EventSchema, scratch: Path) -> BootstrapFiles:
    """The history as Parquet files of events and of labels.

    Args:
        source: .parquet or .csv of events; with the columns label and label_time too where `labels` is None. An event
            whose label is empty has none.
        labels: .parquet or .csv of labels, if they are in a file of their own.
        schema: of the events: in CSV, its text fields are read as text whatever they look like.
        scratch: folder for what has to be written.

    Raises:
        TableError: a file or column is not there or cannot be read.
    """
    texts = (EVENT_ID, *(field.name for field in schema.fields if field.kind == "text"))
    events = ParquetFile(_parquet(source, texts, scratch / "events.parquet"))
    if labels is not None:
        known = ParquetFile(_parquet(labels, (EVENT_ID,), scratch / "labels.parquet"))
    else:
        events.require([EVENT_ID, LABEL, LABEL_TIME])
        split = scratch / "labels.parquet"
        frame = pl.scan_parquet(events.path).select(EVENT_ID, LABEL, LABEL_TIME)
        frame.filter(pl.col(LABEL).is_not_null() & pl.col(LABEL_TIME).is_not_null()).sink_parquet(split)
        known = ParquetFile(split)
    EventFile(events, schema).check()
    LabelFile(known).check()
    return BootstrapFiles(events.path, known.path)


def labelled_rows(training_set: Path, pipeline: Pipeline) -> Iterator[LabelledRows]:
    """The labelled events of a training set in the order in which a learner would have taken them.

    Args:
        training_set: what `compute_training_set` wrote.
        pipeline: its declaration.

    Yields:
        At most 10,000 rows, in the order (label time, event id) over all of them.
    """
    columns = [EVENT_ID, LABEL, LABEL_TIME, *pipeline.feature_names]
    frame = pl.read_parquet(training_set, columns=columns)
    time = pl.col(LABEL_TIME)
    if frame.schema[LABEL_TIME] != pl.Int64:
        time = time.cast(pl.Datetime("us")).cast(pl.Int64)
    frame = (
        frame.filter(pl.col(LABEL).is_not_null())
        .with_columns(time.alias(LABEL_TIME), *(pl.col(name).cast(pl.Float32) for name in pipeline.feature_names))
        .sort(LABEL_TIME, EVENT_ID)
    )
    for part in frame.iter_slices(BATCH_ROWS):
        values = part[LABEL].cast(pl.Float64).to_numpy()
        yield LabelledRows(
            part.select(pipeline.feature_names).to_numpy().astype(np.float32),
            values if pipeline.label.numeric else values > 0.5,
            part[EVENT_ID].to_list(),
            part[LABEL_TIME].to_numpy().astype(np.int64),
        )


def _parquet(path: Path, texts: tuple[str, ...], to: Path) -> Path:
    if path.suffix not in FORMATS:
        raise TableError(str(path), f"has an unknown suffix; allowed are {' and '.join(FORMATS)}")
    if path.suffix == ".parquet":
        return path
    if not path.is_file():
        raise TableError(str(path), "there is no such file")
    try:
        present = pl.scan_csv(path).collect_schema().names()
        types = {name: pl.String for name in texts if name in present}
        pl.scan_csv(path, schema_overrides=types, try_parse_dates=True).sink_parquet(to)
    except pl.exceptions.PolarsError as error:
        raise TableError(str(path), f"cannot be read as CSV: {str(error).splitlines()[0]}") from error
    return to
