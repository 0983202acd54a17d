"""The columns of a raw record beside its time and id: one integer per event for each thing that features need of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headrace.pipeline.errors import DefinitionError
from headrace.pipeline.events import EventColumns, FloatArray, Int64Array, hash_ids
from headrace.pipeline.schema import Field

BoolArray = npt.NDArray[np.bool_]
Lookup = Callable[[str], npt.NDArray[Any]]
"""From the name of a lane to its values."""

Filter = Callable[[EventColumns], BoolArray]
"""From the batch's columns to whether each event counts, shape (n,)."""

REGISTER_BITS = 12
RANK_BITS = 6


@dataclass(frozen=True)
class Lane:
    """One column of a raw record.

    Attributes:
        name: of the column.
        kind: "value": the field in integer units; "cell": the field's place in a HyperLogLog; "flag": whether a filter
            lets the event through.
        field: the field, for values and cells.
        where: the filter, for flags.
    """

    name: str
    kind: Literal["value", "cell", "flag"]
    field: Field | None = None
    where: Filter | None = None

    @property
    def dtype(self) -> str:
        """Its type in the record."""
        if self.kind == "flag":
            return "u1"
        if self.kind == "cell":
            return "<u4"
        assert self.field is not None
        return "<i4" if largest_integer(self.field) < 2**31 else "<i8"

    @property
    def absent(self) -> int | None:
        """What stands for the absent value of an optional field; None when it is always there."""
        if self.field is None or not self.field.optional:
            return None
        return 0 if self.kind == "cell" else int(np.iinfo(self.dtype).min)

    def values(self, events: EventColumns) -> npt.NDArray[Any]:
        """The lane of n events, computed once per batch, shape (n,)."""
        return events.remembered(self, self._values)

    def _values(self, events: EventColumns) -> npt.NDArray[Any]:
        if (where := self.where) is not None:
            return events.remembered(where, lambda e: checked_filter(where, e).astype(np.uint8))
        assert self.field is not None
        if self.kind == "cell":
            return cells(self.field, events)
        return integers(self.field, events.numbers[self.field.name], self.absent)


def value_lane(field: Field) -> Lane:
    """The lane of a field in integer units."""
    return Lane(field.name if field.name not in ("time", "id") else f"{field.name}#value", "value", field)


def cell_lane(field: Field) -> Lane:
    """The lane of a field's HyperLogLog cells."""
    return Lane(f"{field.name}#cell", "cell", field)


def flag_lane(number: int, where: Filter) -> Lane:
    """The lane of the entity's filter with this number."""
    return Lane(f"where#{number}", "flag", where=where)


def largest_integer(field: Field) -> float:
    """How large in size the integers of a field may be."""
    return max(abs(field.minimum), abs(field.maximum)) * (field.scale if field.kind == "number" else 1)


def integers(field: Field, values: FloatArray, absent: int | None = None) -> Int64Array:
    """A field in integer units: minor units, or the value times its scale, rounded; shape (n,)."""
    scaled = values * field.scale if field.kind == "number" else values
    if absent is None:
        return np.rint(scaled).astype(np.int64)
    missing = np.isnan(scaled)
    return np.where(missing, absent, np.rint(np.where(missing, 0.0, scaled)).astype(np.int64))


def cells(field: Field, events: EventColumns) -> npt.NDArray[np.uint32]:
    """For each event the HyperLogLog cell of its value, register << 6 | rank; 0 where it is absent; shape (n,)."""
    if field.kind == "text":
        texts = events.texts[field.name]
        hashes = hash_ids(texts)
        absent = np.fromiter((not text for text in texts), np.bool_, len(texts)) if field.optional else None
    else:
        numbers = events.numbers[field.name]
        absent = np.isnan(numbers) if field.optional else None
        hashes = _mixed(np.where(absent, 0.0, numbers) if absent is not None else numbers)
    rest_bits = 64 - REGISTER_BITS
    rest = hashes & np.uint64(2**rest_bits - 1)
    # Below 2^53 a float holds an integer exactly, and its exponent is the number of its bits.
    rank = rest_bits - np.frexp(rest.astype(np.float64))[1] + 1
    found = ((hashes >> np.uint64(rest_bits)).astype(np.uint32) << np.uint32(RANK_BITS)) | rank.astype(np.uint32)
    return found if absent is None else np.where(absent, np.uint32(0), found)


def checked_filter(where: Filter, events: EventColumns) -> BoolArray:
    """What a filter says of n events, shape (n,).

    Raises:
        DefinitionError: it does not give one boolean per event.
    """
    if not len(events):  # an empty list of booleans has no type
        return np.zeros(0, np.bool_)
    found = np.asarray(where(events))
    if found.shape != (len(events),) or found.dtype != np.bool_:
        raise DefinitionError(
            f"where {where.__name__!r} gives {found.dtype} of shape {found.shape}; it must give one bool per event, "
            f"shape ({len(events)},)"
        )
    return found


def _mixed(numbers: FloatArray) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of whole numbers: the finalizer of SplitMix64 (Steele, Lea, Flood, 2014)."""
    z = numbers.astype(np.int64).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
