"""A history in Parquet files as blocks of events with their labels, for building a feature state from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.offline.event_table import ID, EventFile, event_columns
from headrace.offline.label_table import KNOWN, ORDER, PREVIOUS, VALUE, LabelFile, in_sequence
from headrace.offline.parquet_file import ParquetFile
from headrace.pipeline.events import EventColumns
from headrace.pipeline.state import LABEL_RECORD, Records, label_records
from headrace.platform.pipelines import load_pipeline

READ_ROWS = 65_536
FOOTER_BYTES = 65_536
PLACE = "#place"


@dataclass(frozen=True)
class ParquetHistory:
    """Events, and labels if there are any; columns as for a training set.

    Attributes:
        pipeline: where the declaration is, as `load_pipeline` takes it.
        events: Parquet file of events.
        labels: Parquet file of labels.
    """

    pipeline: str
    events: Path
    labels: Path | None

    def check(self) -> None:
        """Check that files and columns are there.

        Raises:
            TableError: names what is not.
        """
        self._events.check()
        if self.labels is not None:
            LabelFile(ParquetFile(self.labels)).check()

    @cached_property
    def identity(self) -> str:
        """Tells these files from others, and from themselves after a change: sizes and statistics."""
        digest = hashlib.blake2b(digest_size=8)
        for path in (self.events, self.labels):
            if path is not None:
                size = path.stat().st_size
                with path.open("rb") as file:
                    file.seek(max(size - FOOTER_BYTES, 0))
                    digest.update(size.to_bytes(8, "big") + file.read())
        return digest.hexdigest()

    @property
    def rows(self) -> int:
        """Number of events."""
        return self._events.rows

    def blocks(self, start: int, length: int) -> Iterator[tuple[int, EventColumns, npt.NDArray[np.intp], Records]]:
        """The events from row `start` on, in blocks of at most `length`.

        Yields:
            Number of the first row; n events; for each of k labels the event of the block that it belongs to,
            ascending, shape (k,); and what the labels add to the label logs, shape (k,).

        Raises:
            TableError: names column and row of the first value that is not allowed.
        """
        schema = load_pipeline(self.pipeline).event
        for first in range(start, self.rows, READ_ROWS):
            table = self._events.block(first, READ_ROWS)
            for at in range(0, len(table), length):
                block = table.slice(at, length)
                columns = event_columns(schema, block)
                rows, labels = self._labels_of(block, columns)
                yield first + at, columns, rows, labels

    @cached_property
    def _events(self) -> EventFile:
        return EventFile(ParquetFile(self.events), load_pipeline(self.pipeline).event)

    @cached_property
    def _labels(self) -> pl.DataFrame | None:
        """All labels in sequence."""
        if self.labels is None:
            return None
        file = LabelFile(ParquetFile(self.labels), load_pipeline(self.pipeline).label)
        return in_sequence(file.block(0, file.rows))

    def _labels_of(self, block: pl.DataFrame, columns: EventColumns) -> tuple[npt.NDArray[np.intp], Records]:
        if self._labels is None:
            return np.zeros(0, np.intp), np.zeros(0, LABEL_RECORD)
        places = block.select(ID).with_row_index(PLACE)
        found = places.join(self._labels, on=ID, how="inner").sort(PLACE, KNOWN, ORDER)
        rows = found[PLACE].to_numpy().astype(np.intp)
        records = label_records(
            found[ID].to_list(),
            columns.times[rows],
            found[KNOWN].to_numpy(),
            found[VALUE].to_numpy(),
            found[PREVIOUS].fill_null(np.nan).to_numpy(),
        )
        return rows, records
