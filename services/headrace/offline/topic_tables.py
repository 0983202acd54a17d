"""`events` and `outcomes` of a deployed pipeline as tables on disk, by the rules of the stream processor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from headrace.features.decoding import decode_partition
from headrace.features.outcome_decoding import decode_outcomes
from headrace.features.time_guard import TimeGuard
from headrace.offline.errors import TableError
from headrace.offline.event_table import ID, TIME, event_table
from headrace.offline.label_table import KNOWN, LOGGED, ORDER, PREVIOUS, VALUE
from headrace.offline.progress import Progress, untold
from headrace.offline.topic_records import topic_records
from headrace.pipeline import EventColumns, Pipeline
from headrace.platform.topics import Topics
from headrace.v1.prediction_pb2 import OUTCOME_KIND_EXPIRED, Outcome


@dataclass(frozen=True)
class StoredTable:
    """A table on disk in files of equal length; the last may be shorter.

    Attributes:
        files: Arrow files in order.
        file_rows: rows of each but the last.
        rows: of all.
        rejected: records that were skipped, by reason.
    """

    files: tuple[Path, ...]
    file_rows: int
    rows: int
    rejected: Counter[str]

    def block(self, start: int, length: int) -> pl.DataFrame:
        """Some rows.

        Args:
            start: first row, a multiple of `file_rows`.
            length: at most `file_rows`.
        """
        if start % self.file_rows or length > self.file_rows:
            raise ValueError(f"rows {start} to {start + length} are not within one file of {self.file_rows}")
        return pl.read_ipc(self.files[start // self.file_rows]).head(length)


class _Writer:
    def __init__(self, folder: Path, name: str, file_rows: int) -> None:
        self._folder, self._name, self._file_rows = folder, name, file_rows
        self._waiting: list[pl.DataFrame] = []
        self._files: list[Path] = []
        self.rows = 0
        self.rejected: Counter[str] = Counter()

    def add(self, table: pl.DataFrame) -> None:
        if len(table):
            self._waiting.append(table)
            self.rows += len(table)
        while self.rows - len(self._files) * self._file_rows >= self._file_rows:
            self._write(self._file_rows)

    def finish(self) -> StoredTable:
        if self._waiting and sum(map(len, self._waiting)):
            self._write(self._file_rows)
        return StoredTable(tuple(self._files), self._file_rows, self.rows, self.rejected)

    def _write(self, rows: int) -> None:
        table = pl.concat(self._waiting)
        path = self._folder / f"{self._name}-{len(self._files)}.arrow"
        table.head(rows).write_ipc(path, compression="uncompressed")
        self._files.append(path)
        self._waiting = [table.slice(rows)]


async def read_events(
    bootstrap: str, topics: Topics, pipeline: Pipeline, folder: Path, file_rows: int, progress: Progress = untold
) -> StoredTable:
    """Events as far as `events` goes now, in the order of partition and offset. Those that the worker sets aside are
    counted by reason.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        pipeline: its declaration.
        folder: where the table goes.
        file_rows: rows of a file of it.
        progress: told of offsets.

    Raises:
        TableError: the topic has no event that can be used.
        KafkaFault: Kafka does not answer, or has no such topic.
    """
    records = await topic_records(bootstrap, topics.events, progress)
    writer = _Writer(folder, "topic-events", file_rows)
    for partition in records.partitions:
        guard = TimeGuard()
        async for run in records.of_partition(partition):
            decoded = decode_partition(pipeline, run, guard)
            guard = decoded.guard
            writer.rejected.update(rejected.reason for rejected in decoded.rejected)
            writer.add(_event_rows(pipeline, decoded.accepted.columns, writer.rows))
    if not writer.rows:
        raise TableError(topics.events, "has no events that can be used")
    return writer.finish()


async def read_labels(
    bootstrap: str, topics: Topics, pipeline: Pipeline, folder: Path, file_rows: int, progress: Progress = untold
) -> StoredTable:
    """Labels of outcomes as far as `outcomes` goes now, in sequence for each event.

    An outcome without a label (expired) has a value that counts for training where the pipeline declares one, and not
    for features; so has an outcome of an event that is not in the state.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        pipeline: its declaration.
        folder: where the table goes.
        file_rows: rows of a file of it.
        progress: told of offsets.

    Raises:
        KafkaFault: Kafka does not answer, or has no such topic.
    """
    records = await topic_records(bootstrap, topics.outcomes, progress)
    writer = _Writer(folder, "topic-labels", file_rows)
    for partition in records.partitions:
        async for run in records.of_partition(partition):
            outcomes, rejected = decode_outcomes(pipeline, run)
            writer.rejected.update(one.reason for one in rejected)
            writer.add(_label_rows([outcome for _, _, outcome in outcomes], writer.rows))
    return writer.finish()


def _event_rows(pipeline: Pipeline, events: EventColumns, start: int) -> pl.DataFrame:
    columns = {ID: pl.Series(events.ids, dtype=pl.String), TIME: pl.Series(events.times, dtype=pl.Int64)}
    columns |= {field.name: pl.Series(events.texts[field.name], dtype=pl.String) for field in pipeline.event.texts}
    columns |= {field.name: pl.Series(events.numbers[field.name]) for field in pipeline.event.numbers}
    return event_table(pl.DataFrame(columns), start)


def _label_rows(outcomes: Sequence[Outcome], start: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            ID: [outcome.prediction.event_id for outcome in outcomes],
            VALUE: [outcome.label.value for outcome in outcomes],
            KNOWN: [outcome.label.label_time_us for outcome in outcomes],
            PREVIOUS: [o.previous_label if o.HasField("previous_label") else None for o in outcomes],
            LOGGED: [o.prediction.ingested and o.kind != OUTCOME_KIND_EXPIRED for o in outcomes],
            ORDER: np.arange(start, start + len(outcomes), dtype=np.int64),
        },
        schema={
            ID: pl.String,
            VALUE: pl.Float64,
            KNOWN: pl.Int64,
            PREVIOUS: pl.Float64,
            LOGGED: pl.Boolean,
            ORDER: pl.Int64,
        },
    )
