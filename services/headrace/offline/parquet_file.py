"""A Parquet file that is read block by block, with errors that name the file and the column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from headrace.offline.errors import TableError
from headrace.pipeline.schema import LATEST_TIME_US

TIME_ALLOWED = "allowed is a timestamp (UTC unless it has a zone) or int64 microseconds since 1970-01-01 UTC"


@dataclass(frozen=True)
class ParquetFile:
    """One Parquet file.

    Attributes:
        path: of the file.
    """

    path: Path

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns and their types.

        Raises:
            TableError: there is no such file, or it is no Parquet file.
        """
        if not self.path.is_file():
            raise TableError(str(self.path), "there is no such file")
        try:
            return dict(pl.read_parquet_schema(self.path))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise TableError(str(self.path), f"cannot be read as Parquet: {_line(error)}") from error

    @cached_property
    def rows(self) -> int:
        """Number of rows.

        Raises:
            TableError: it cannot be read.
        """
        return int(self._collect(pl.scan_parquet(self.path).select(pl.len())).item())

    def read(self, columns: list[str], start: int, length: int) -> pl.DataFrame:
        """Some rows of some columns.

        Raises:
            TableError: it cannot be read.
        """
        return self._collect(pl.scan_parquet(self.path).select(columns).slice(start, length))

    def require(self, columns: list[str]) -> None:
        """Check that columns are there.

        Raises:
            TableError: the first one that is not.
        """
        for column in columns:
            if column not in self.schema:
                present = ", ".join(self.schema) or "no columns"
                raise TableError(str(self.path), f"is missing; the file has {present}", column=column)

    def wrong_type(self, column: str, allowed: str) -> TableError:
        """The error for a column of a type that cannot be used."""
        return TableError(str(self.path), f"has the type {self.schema[column]}; {allowed}", column=column)

    def refuse(self, column: str, wrong: pl.Series, start: int, reason: Callable[[int], str]) -> None:
        """Raise for the first row at fault.

        Args:
            column: the column that was looked at.
            wrong: True where a row is at fault; null counts as False.
            start: rows of the file before the first of these.
            reason: says what is wrong, given the position among these rows.

        Raises:
            TableError: a row is at fault.
        """
        row = wrong.fill_null(False).arg_max() if wrong.any() else None
        if row is not None:
            raise TableError(str(self.path), reason(row), column=column, row=start + row + 1)

    def text(self, frame: pl.DataFrame, column: str) -> pl.Series:
        """A column as text.

        Raises:
            TableError: it has another type.
        """
        if self.schema[column] not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
            raise self.wrong_type(column, "allowed is text")
        return frame[column].cast(pl.String)

    def times(self, frame: pl.DataFrame, column: str, start: int) -> pl.Series:
        """A column as microseconds since 1970-01-01 UTC, int64.

        Raises:
            TableError: it has another type, or a row is empty or outside the years 1970 to 2200.
        """
        values = frame[column]
        if isinstance(values.dtype, pl.Datetime):
            values = values.dt.epoch("us")
        elif values.dtype != pl.Int64:
            raise self.wrong_type(column, TIME_ALLOWED)
        self.refuse(column, values.is_null(), start, lambda _: f"is empty; {TIME_ALLOWED}")
        outside = (values <= 0) | (values >= LATEST_TIME_US)
        self.refuse(
            column,
            outside,
            start,
            lambda row: f"{frame[column][row]} is out of range; allowed are the years 1970 to 2200",
        )
        return values

    def _collect(self, query: pl.LazyFrame) -> pl.DataFrame:
        _ = self.schema
        try:
            return query.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise TableError(str(self.path), f"cannot be read as Parquet: {_line(error)}") from error


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
