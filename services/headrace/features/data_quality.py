"""What the fields of the events look like: how many values, how many absent, refused, new, and between which bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.pipeline.events import EventColumns, FloatArray
from headrace.pipeline.schema import EventSchema

MAX_CATEGORIES = 1024
"""Most values of a text field that are remembered as known."""
MAX_SAMPLE = 4096
"""Most hashes that a distinct estimate keeps."""
IDENTITY = ("event_id", "event_time_us")
"""What an event has beside the fields of its schema, and can be refused for."""
WHOLE = ""
"""Stands for the event as a whole, and for names that no schema has."""


@dataclass
class DistinctEstimate:
    """How many different texts there were: exact up to `MAX_SAMPLE`, then within about 2 %.

    Adaptive sampling (P. Flajolet, "On adaptive sampling", Computing 34, 1990): of the hashes those are kept whose last
    `level` bits are 0; whenever too many are, the level rises and about half of them leave.

    Attributes:
        level: number of bits that must be 0.
        sample: hashes kept.
    """

    level: int = 0
    sample: set[int] = field(default_factory=set)

    @property
    def count(self) -> int:
        """The estimate."""
        return len(self.sample) << self.level

    def add(self, texts: Sequence[str]) -> None:
        """Take texts in."""
        if self.level:
            hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
            self.sample.update(hashes[(hashes & ((1 << self.level) - 1)) == 0].tolist())
        else:
            self.sample.update(map(hash, texts))
        while len(self.sample) > MAX_SAMPLE:
            self.level += 1
            mask = (1 << self.level) - 1
            self.sample = {one for one in self.sample if not one & mask}


@dataclass(frozen=True)
class FieldQuality:
    """What was seen of one field since the process started.

    Attributes:
        name: of the field.
        values: events that had it.
        absent: events that did not; they are accepted where the field is optional.
        refused: events set aside for it, by reason.
        minimum: smallest value accepted; None for text, and before the first.
        maximum: largest value accepted; None for text, and before the first.
        distinct: how many different values there were, estimated; None for numbers.
        new: events with a value that had not been seen before; None for numbers and for ids of entities.
    """

    name: str
    values: int
    absent: int
    refused: dict[str, int]
    minimum: float | None = None
    maximum: float | None = None
    distinct: int | None = None
    new: int | None = None


class _NumberStatistics:
    def __init__(self) -> None:
        self.values = self.absent = 0
        self.minimum, self.maximum = np.inf, -np.inf

    def add(self, numbers: FloatArray) -> None:
        given = numbers
        if np.isnan(numbers.min()):  # NaN spreads
            given = numbers[~np.isnan(numbers)]
            self.absent += len(numbers) - len(given)
        self.values += len(given)
        if len(given):
            self.minimum = min(self.minimum, float(given.min()))
            self.maximum = max(self.maximum, float(given.max()))


class _TextStatistics:
    def __init__(self, *, categories: bool) -> None:
        self.values = self.absent = 0
        self.distinct = DistinctEstimate()
        self.known: set[str] | None = set() if categories else None
        self.new = 0

    def add(self, texts: Sequence[str]) -> None:
        absent = texts.count("")
        self.absent += absent
        self.values += len(texts) - absent
        if absent:
            texts = [text for text in texts if text]
        self.distinct.add(texts)
        if self.known is not None:
            self._find_new(texts, self.known)

    def _find_new(self, texts: Sequence[str], known: set[str]) -> None:
        room = MAX_CATEGORIES - len(known)
        if room:
            unknown = set(texts) - known
            first_seen = sorted(unknown)[:room] if len(unknown) > room else unknown
            self.new += len(first_seen)
            known.update(first_seen)
            if len(first_seen) == len(unknown):
                return
        # There is no room to remember others, so each of their events counts as new.
        self.new += len(texts) - sum(map(known.__contains__, texts))


class DataQuality:
    """Statistics of all fields of a schema, batch by batch. Memory is bounded, whatever the values are."""

    def __init__(self, schema: EventSchema, entity_fields: Collection[str]) -> None:
        """Args:
        schema: the fields.
        entity_fields: those that hold ids of entities: of these, new values are the rule and are not counted.
        """
        self._numbers = {one.name: _NumberStatistics() for one in schema.numbers}
        self._texts = {one.name: _TextStatistics(categories=one.name not in entity_fields) for one in schema.texts}
        self._names = [one.name for one in schema.fields]
        self._refused: dict[str, Counter[str]] = {name: Counter() for name in (*self._names, *IDENTITY, WHOLE)}

    def observe(self, events: EventColumns) -> None:
        """Take in events that were accepted."""
        if not len(events):
            return
        for name, numbers in self._numbers.items():
            numbers.add(events.numbers[name])
        for name, texts in self._texts.items():
            texts.add(events.texts[name])

    def refuse(self, name: str, reason: str) -> None:
        """Take in an event that was set aside.

        Args:
            name: the field at fault; one that is not in the schema counts for the event as a whole.
            reason: as in `Rejected.reason`.
        """
        self._refused.get(name, self._refused[WHOLE])[reason] += 1

    def summary(self) -> list[FieldQuality]:
        """What was seen of each field in schema order, then of id, time and the event as a whole."""
        return [self._field(name) for name in self._names] + [
            FieldQuality(name, 0, 0, dict(self._refused[name])) for name in (*IDENTITY, WHOLE)
        ]

    def _field(self, name: str) -> FieldQuality:
        refused = dict(self._refused[name])
        if name in self._texts:
            text = self._texts[name]
            new = None if text.known is None else text.new
            return FieldQuality(name, text.values, text.absent, refused, distinct=text.distinct.count, new=new)
        number = self._numbers[name]
        bounds = (number.minimum, number.maximum) if number.values else (None, None)
        return FieldQuality(name, number.values, number.absent, refused, *bounds)
