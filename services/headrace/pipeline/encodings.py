"""Encodings of a categorical field of the event into numbers that a model can take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headrace.pipeline.errors import DefinitionError
from headrace.pipeline.events import EventColumns, FloatArray, hash_ids
from headrace.pipeline.schema import Field

MAX_COLUMNS = 1024
Category = str | int


@dataclass(frozen=True)
class Encoding:
    """One or more features of a text or whole-number field. Use `one_hot`, `ordinal` or `hashed`.

    Attributes:
        names: names of the features.
        kind: how the field is encoded.
        of: the field.
        categories: its known values, for one_hot and ordinal.
        other: the ordinal of a value that is not known.
    """

    names: tuple[str, ...]
    kind: Literal["one_hot", "ordinal", "hashed"]
    of: str
    categories: tuple[Category, ...] = ()
    other: float = -1.0

    def values(self, events: EventColumns) -> FloatArray:
        """The features of n events, shape (n, columns)."""
        if self.kind == "hashed":
            return _indicators(self._buckets(events), len(self.names))
        positions = {category: position for position, category in enumerate(self.categories)}
        unknown = len(positions)
        found = np.fromiter((positions.get(v, unknown) for v in self._given(events)), np.int64, len(events))
        if self.kind == "one_hot":
            return _indicators(found, unknown + 1)
        return np.where(found == unknown, self.other, found)[:, None]

    def problem(self, field: Field | None) -> str:
        """What is wrong with the declaration and what is allowed, empty when nothing is."""
        if field is None or field.kind not in ("text", "integer"):
            return f"{self.of!r} is not a text or whole-number field of the event"
        if not 1 <= len(self.names) <= MAX_COLUMNS:
            return f"{len(self.names)} columns; allowed are 1 to {MAX_COLUMNS}"
        if self.kind != "hashed" and not self.categories:
            return "no categories are given; at least one is needed"
        if len(set(self.categories)) < len(self.categories):
            return "a category is given twice"
        allowed = str if field.kind == "text" else int
        for category in self.categories:
            if type(category) is not allowed:
                return f"category {category!r} is no {'text' if allowed is str else 'whole number'} as {self.of!r} is"
        return ""

    def describe(self) -> dict[str, Any]:
        """Everything that gives the features their meaning, for fingerprints."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    def _given(self, events: EventColumns) -> Sequence[Any]:
        texts = events.texts.get(self.of)
        return texts if texts is not None else events.numbers[self.of].tolist()

    def _buckets(self, events: EventColumns) -> npt.NDArray[np.int64]:
        texts = events.texts.get(self.of)
        if texts is None:
            texts = [f"{value:.0f}" for value in events.numbers[self.of].tolist()]
        return (hash_ids(texts) % np.uint64(len(self.names))).astype(np.int64)


def one_hot(of: str, categories: Sequence[Category], *, name: str = "") -> Encoding:
    """For each category 1 where the field `of` has it, else 0; a last column is 1 where it has none of them.

    Names are `<field>_<category>` with letters, digits and underscores, and `<field>_other`. An absent value is other.
    """
    stem = name or of
    given = [re.sub(r"\W", "_", str(category)) for category in categories]
    return Encoding(tuple(f"{stem}_{text}" for text in [*given, "other"]), "one_hot", of, tuple(categories))


def ordinal(of: str, categories: Sequence[Category], *, name: str = "", other: float = -1.0) -> Encoding:
    """The position of the field `of` among the categories, from 0; `other` when it is none of them."""
    return Encoding((name or f"{of}_ordinal",), "ordinal", of, tuple(categories), other)


def hashed(of: str, buckets: int, *, name: str = "") -> Encoding:
    """For each of `buckets` columns 1 where the field `of` falls into it, else 0.

    The bucket is the BLAKE2b hash (8 bytes, little-endian) of the text, or of a whole number in decimals, modulo
    `buckets`. It is the same on every machine and needs no list of categories; unlike ones may share a bucket.
    """
    if not 1 <= buckets <= MAX_COLUMNS:
        raise DefinitionError(f"encoding of {of!r}: {buckets} buckets; allowed are 1 to {MAX_COLUMNS}")
    return Encoding(tuple(f"{name or of}_bucket_{number}" for number in range(buckets)), "hashed", of)


def _indicators(columns: npt.NDArray[np.int64], width: int) -> FloatArray:
    out = np.zeros((len(columns), width))
    out[np.arange(len(columns)), columns] = 1.0
    return out
