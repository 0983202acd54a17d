"""Labels as a table: when each became known, and what it replaced."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from headrace.offline.event_table import EVENT_ID, ID, ROW
from headrace.offline.parquet_file import ParquetFile
from headrace.pipeline import Label

LABEL = "label"
LABEL_TIME = "label_time"

# Names inside a table of labels.
VALUE, KNOWN, PREVIOUS, LOGGED, ORDER = "#value", "#known", "#previous", "#logged", "#order"


@dataclass(frozen=True)
class LabelFile:
    """The labels of a Parquet file: the columns `event_id`, `label` and `label_time`.

    Attributes:
        file: the file.
        declared: which values are labels.
    """

    file: ParquetFile
    declared: Label = field(default_factory=Label)

    def check(self) -> None:
        """Check that the columns are there.

        Raises:
            TableError: names the first that is not.
        """
        self.file.require([EVENT_ID, LABEL, LABEL_TIME])

    @cached_property
    def rows(self) -> int:
        """Number of labels."""
        return self.file.rows

    def block(self, start: int, length: int) -> pl.DataFrame:
        """Checked labels: id, value, when it became known in microseconds, and the place in the file.

        Raises:
            TableError: names column and row of the first value that is not allowed.
        """
        frame = self.file.read([EVENT_ID, LABEL, LABEL_TIME], start, length)
        ids = self.file.text(frame, EVENT_ID)
        self.file.refuse(
            EVENT_ID, ids.is_null() | (ids.str.len_bytes() == 0), start, lambda _: "is empty; an id is required"
        )
        dtype = frame[LABEL].dtype
        if not (dtype.is_numeric() or dtype == pl.Boolean):
            allowed = "a number" if self.declared.numeric else "a number, 0 or 1, or a boolean"
            raise self.file.wrong_type(LABEL, f"allowed is {allowed}")
        values = frame[LABEL].cast(pl.Float64)
        self.file.refuse(
            LABEL, values.is_null() | ~self._allowed(values), start, lambda row: self._refusal(values[row])
        )
        known = self.file.times(frame, LABEL_TIME, start)
        order = np.arange(start, start + len(frame), dtype=np.int64)
        return pl.DataFrame({ID: ids, VALUE: values, KNOWN: known, ORDER: order})

    def _allowed(self, values: pl.Series) -> pl.Series:
        label = self.declared
        if not label.numeric:
            return values.is_in([0.0, 1.0])
        low = -math.inf if label.minimum is None else label.minimum
        high = math.inf if label.maximum is None else label.maximum
        return values.is_finite() & (values >= low) & (values <= high)

    def _refusal(self, value: float | None) -> str:
        if value is None or not self.declared.numeric:
            return f"{value} is no label; allowed is {'a number' if self.declared.numeric else '0 or 1'}"
        return self.declared.refusal(value)


def in_sequence(labels: pl.DataFrame) -> pl.DataFrame:
    """Labels in the order in which they became known, each with the one that it replaces; repeats are dropped.

    Where two of an event became known at once, the later one in the file replaces the earlier.

    Args:
        labels: all labels of some events, as `LabelFile.block` gives them.
    """
    ordered = labels.sort(ID, KNOWN, ORDER)
    previous = ordered.with_columns(pl.col(VALUE).shift(1).over(ID).alias(PREVIOUS))
    changed = previous.filter(pl.col(PREVIOUS).is_null() | (pl.col(PREVIOUS) != pl.col(VALUE)))
    return changed.with_columns(pl.lit(True).alias(LOGGED))


def newest(labels: pl.DataFrame) -> pl.DataFrame:
    """The label that each event has in the end, with its time, by the event's row.

    Args:
        labels: labels of events in sequence, with the row of the event.
    """
    return labels.group_by(ROW, maintain_order=True).last().select(ROW, VALUE, KNOWN).sort(ROW)
