"""pandas and polars frames, and mappings of arrays, read and made without a need for either library. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.client.violations import InvalidInputError, Violation

AnyFrame = Any
"""`pandas.DataFrame`, `polars.DataFrame`, or a mapping of names to arrays or lists of one length."""


class Table(Protocol):
    """What is asked of a frame, of whatever kind."""

    names: Sequence[str]
    rows: int

    def numbers(self, name: str) -> NDArray[Any] | None:
        """A column of numbers or booleans, absent ones NaN; None where it has something else."""

    def values(self, name: str) -> Sequence[Any]:
        """A column as plain Python values, absent ones None."""

    def times_us(self, name: str) -> NDArray[Any] | None:
        """A column of times in microseconds, absent ones NaN; None where its type is not one of times."""

    def zone(self, name: str) -> bool:
        """Whether a column of times has a time zone."""

    def answer(self, columns: Mapping[str, Any]) -> AnyFrame:
        """Columns as a frame of the same kind, row by row as this one."""


class Arrays:
    """A mapping of arrays or lists."""

    def __init__(self, frame: Mapping[str, Any]) -> None:
        self._columns = frame
        self.names: Sequence[str] = [str(name) for name in frame]
        lengths = {name: len(values) for name, values in frame.items()}
        self.rows = next(iter(lengths.values()), 0)
        for name, length in lengths.items():
            if length != self.rows:
                raise InvalidInputError(
                    [Violation(f"column {name}", f"{length} values; the first column has {self.rows}")]
                )

    def numbers(self, name: str) -> NDArray[Any] | None:
        values = self._columns[name]
        if not isinstance(values, np.ndarray):
            values = np.array([np.nan if value is None else value for value in values])
        return values if values.dtype.kind in "biuf" else None

    def values(self, name: str) -> Sequence[Any]:
        values = self._columns[name]
        return values.tolist() if isinstance(values, np.ndarray) else list(values)

    def times_us(self, name: str) -> NDArray[Any] | None:
        values = self._columns[name]
        if not isinstance(values, np.ndarray) or values.dtype.kind != "M":
            return None
        return _absent_as_nan(values.astype("datetime64[us]").astype(np.int64), np.isnat(values))

    def zone(self, name: str) -> bool:
        return False

    def answer(self, columns: Mapping[str, Any]) -> AnyFrame:
        return {
            name: values if isinstance(values, np.ndarray) else np.array(values) for name, values in columns.items()
        }


class PandasTable(Arrays):
    """A pandas frame."""

    def __init__(self, frame: Any) -> None:
        super().__init__({str(name): frame[name] for name in frame.columns})
        self._frame = frame
        self.rows = len(frame)

    def numbers(self, name: str) -> NDArray[Any] | None:
        series = self._columns[name]
        kind = getattr(series.dtype, "kind", "O")
        if kind not in "biuf":
            return None
        if series.isna().any():
            values: NDArray[Any] = series.to_numpy(dtype=np.float64, na_value=np.nan)
            return values
        return np.asarray(series.to_numpy(dtype=getattr(series.dtype, "numpy_dtype", None)))

    def values(self, name: str) -> Sequence[Any]:
        series = self._columns[name]
        return [None if gone else value for value, gone in zip(series.tolist(), series.isna().tolist(), strict=True)]

    def times_us(self, name: str) -> NDArray[Any] | None:
        series = self._columns[name]
        if getattr(series.dtype, "kind", "O") != "M":
            return None
        if self.zone(name):
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        values = series.to_numpy(dtype="datetime64[us]").astype(np.int64)
        return _absent_as_nan(values, series.isna().to_numpy())

    def zone(self, name: str) -> bool:
        return getattr(self._columns[name].dtype, "tz", None) is not None

    def answer(self, columns: Mapping[str, Any]) -> AnyFrame:
        return type(self._frame)(dict(columns), index=self._frame.index)


class PolarsTable:
    """A polars frame."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.names: Sequence[str] = list(frame.columns)
        self.rows: int = frame.height

    def numbers(self, name: str) -> NDArray[Any] | None:
        series = self._frame[name]
        if str(series.dtype) == "Boolean":
            series = series.cast(sys.modules["polars"].Int8)
        elif not series.dtype.is_numeric():
            return None
        # Absent ones become NaN.
        values: NDArray[Any] = series.to_numpy()
        return values if values.dtype.kind in "biuf" else np.asarray(series.cast(sys.modules["polars"].Float64))

    def values(self, name: str) -> Sequence[Any]:
        values: list[Any] = self._frame[name].to_list()
        return values

    def times_us(self, name: str) -> NDArray[Any] | None:
        series = self._frame[name]
        if not str(series.dtype).startswith("Datetime"):
            return None
        values: NDArray[Any] = series.dt.epoch("us").to_numpy()
        return values

    def zone(self, name: str) -> bool:
        return getattr(self._frame[name].dtype, "time_zone", None) is not None

    def answer(self, columns: Mapping[str, Any]) -> AnyFrame:
        return type(self._frame)(dict(columns))


def table(frame: AnyFrame) -> Table:
    """A frame, of whatever kind.

    Raises:
        TypeError: it is of none of them.
    """
    library = type(frame).__module__.split(".")[0]
    if library == "pandas" and hasattr(frame, "columns"):
        return PandasTable(frame)
    if library == "polars" and hasattr(frame, "height"):
        return PolarsTable(frame)
    if isinstance(frame, Mapping):
        return Arrays(frame)
    raise TypeError(f"a {type(frame).__name__} is no table: give a pandas or polars DataFrame, or a mapping of arrays")


def _absent_as_nan(values: NDArray[np.int64], absent: NDArray[np.bool_]) -> NDArray[Any]:
    return np.where(absent, np.nan, values) if absent.any() else values
