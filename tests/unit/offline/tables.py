"""Random histories as Parquet files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl

from headrace.offline.event_table import EventFile
from headrace.offline.label_table import LabelFile
from headrace.offline.parquet_file import ParquetFile
from headrace.offline.training_set import TrainingSet, compute_training_set
from headrace.pipeline import Pipeline
from tests.unit.offline.random_history import RandomHistory


def event_frame(pipeline: Pipeline, history: RandomHistory) -> pl.DataFrame:
    """The events in the form that a file has."""
    events = history.events.events
    columns: dict[str, object] = {"event_id": events.ids, "event_time": events.times}
    for field in pipeline.event.texts:
        columns[field.name] = [text or None for text in events.texts[field.name]]
    for field in pipeline.event.numbers:
        given = [None if math.isnan(value) else value for value in events.numbers[field.name].tolist()]
        kind = {"boolean": pl.Boolean, "integer": pl.Int64, "number": pl.Float64}[field.kind]
        columns[field.name] = pl.Series(given, dtype=pl.Float64).cast(kind)
    return pl.DataFrame(columns)


def label_frame(history: RandomHistory, random: np.random.Generator) -> pl.DataFrame:
    """The labels in the form that a file has, in any order but for those of one event at one time."""
    labels = history.labels
    frame = pl.DataFrame({"event_id": labels.ids, "label": labels.values.astype(np.int8), "label_time": labels.known})
    frame = frame.with_columns(pl.Series("place", random.permutation(len(frame))))
    frame = frame.with_columns(pl.col("place").sort().over("event_id"))
    return frame.sort("place").drop("place").cast({"label_time": pl.Datetime("us", "UTC")})


def computed(
    pipeline: Pipeline,
    events: pl.DataFrame,
    labels: pl.DataFrame | None,
    folder: Path,
    *,
    rows: int = 7,
    workers: int = 1,
) -> tuple[pl.DataFrame, TrainingSet]:
    """The training set of two tables, made in small pieces."""
    events.write_parquet(folder / "events.parquet")
    source = EventFile(ParquetFile(folder / "events.parquet"), pipeline.event)
    source.check()
    known = None
    if labels is not None:
        labels.write_parquet(folder / "labels.parquet")
        known = LabelFile(ParquetFile(folder / "labels.parquet"))
        known.check()
    to = folder / "set.parquet"
    reference = "pipelines/fraud.py"
    made = compute_training_set(
        pipeline, reference, source, known, to, block_rows=rows, bucket_rows=rows, workers=workers
    )
    return pl.read_parquet(to), made
