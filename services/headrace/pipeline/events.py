"""Events of a batch as columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.pipeline.schema import EventSchema

Int64Array = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class EventColumns:
    """n checked events as columns.

    Attributes:
        ids: event ids, n.
        times: event times in microseconds since 1970-01-01 UTC, shape (n,).
        texts: text fields by name, n each.
        numbers: all other fields by name, float64, shape (n,) each; NaN where an optional one is absent.
    """

    ids: Sequence[str]
    times: Int64Array
    texts: Mapping[str, Sequence[str]]
    numbers: Mapping[str, FloatArray]
    _remembered: dict[Hashable, npt.NDArray[Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def remembered(self, what: Hashable, compute: Callable[[EventColumns], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """What `compute` makes of these events, computed once.

        Args:
            what: names it.
            compute: from these columns to one value per event, shape (n,).
        """
        if what not in self._remembered:
            self._remembered[what] = compute(self)
        return self._remembered[what]

    @staticmethod
    def from_rows(
        schema: EventSchema,
        ids: Sequence[str],
        times: Sequence[int],
        texts: Sequence[Sequence[str]],
        numbers: Sequence[Sequence[float]],
    ) -> EventColumns:
        """Columns of events in packed order that have been checked.

        Args:
            schema: gives the order of the fields.
            ids: event ids.
            times: event times in microseconds.
            texts: for each event its text fields in schema order.
            numbers: for each event its other fields in schema order.
        """
        matrix = np.array(numbers, np.float64).reshape(len(ids), len(schema.numbers))
        return EventColumns(
            ids,
            np.array(times, np.int64),
            {field.name: [row[i] for row in texts] for i, field in enumerate(schema.texts)},
            {field.name: np.ascontiguousarray(matrix[:, i]) for i, field in enumerate(schema.numbers)},
        )

    @staticmethod
    def joined(parts: Sequence[EventColumns]) -> EventColumns:
        """The events of one or more blocks of one schema, in order."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        return EventColumns(
            list(chain.from_iterable(one.ids for one in parts)),
            np.concatenate([one.times for one in parts]),
            {name: list(chain.from_iterable(one.texts[name] for one in parts)) for name in first.texts},
            {name: np.concatenate([one.numbers[name] for one in parts]) for name in first.numbers},
        )

    def part(self, first: int, end: int) -> EventColumns:
        """Some neighbouring rows."""
        return EventColumns(
            self.ids[first:end],
            self.times[first:end],
            {name: values[first:end] for name, values in self.texts.items()},
            {name: values[first:end] for name, values in self.numbers.items()},
        )

    def take(self, rows: npt.NDArray[np.intp]) -> EventColumns:
        """The given rows, in the given order."""
        positions = rows.tolist()
        return EventColumns(
            [self.ids[i] for i in positions],
            self.times[rows],
            {name: [values[i] for i in positions] for name, values in self.texts.items()},
            {name: values[rows] for name, values in self.numbers.items()},
        )


def hash_ids(ids: Sequence[str]) -> UInt64Array:
    """A 64-bit hash of each id (BLAKE2b, 8 bytes): how a log recognises an event that it holds already, shape (n,)."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids)
    return np.frombuffer(digests, "<u8").astype(np.uint64)
