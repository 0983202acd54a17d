"""The typed schema of an event: its fields, their bounds, and the packed form that travels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from headrace.pipeline.errors import DefinitionError, EventError

EXACT_INTEGER = 2**53
MAX_ID_BYTES = 128

Kind = Literal["text", "integer", "number", "boolean"]


@dataclass(frozen=True)
class Field:
    """One field of an event. Use `Text`, `Integer`, `Money`, `Number` or `Boolean`.

    Attributes:
        name: identifier, unique in the schema.
        kind: how the value is typed.
        minimum: smallest value allowed (numeric fields).
        maximum: largest value allowed (numeric fields).
        max_bytes: longest text allowed, in bytes of UTF-8 (text fields).
        optional: whether the field may be absent: then text is empty and a number is NaN.
        scale: how many units of the stored integer make one unit of the feature; 100 for cents.
    """

    name: str
    kind: Kind
    minimum: float = -math.inf
    maximum: float = math.inf
    max_bytes: int = MAX_ID_BYTES
    optional: bool = False
    scale: int = 1

    def check_text(self, value: object) -> str:
        """The value as text.

        Raises:
            EventError: not text, empty though required, or too long.
        """
        if not isinstance(value, str):
            raise EventError("wrong_type", self.name, f"{self.name} is {_shown(value)}; it must be text")
        if not value and not self.optional:
            raise EventError("missing_field", self.name, f"{self.name} is missing; it is required text")
        if len(value.encode()) > self.max_bytes:
            raise EventError(
                "out_of_range", self.name, f"{self.name} has {len(value.encode())} bytes; at most {self.max_bytes} fit"
            )
        return value

    def check_number(self, value: object) -> float:
        """The value as a float: integers up to 2^53 exactly, booleans as 0 or 1, NaN for an absent optional field.

        Raises:
            EventError: not a number, not finite, not whole where it must be, or out of bounds.
        """
        if self.kind == "boolean":
            if value in (True, False) or (isinstance(value, float) and math.isnan(value) and self.optional):
                return float(value)
            raise EventError("wrong_type", self.name, f"{self.name} is {_shown(value)}; it must be true or false")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise EventError("wrong_type", self.name, f"{self.name} is {_shown(value)}; it must be a number")
        if isinstance(value, float) and math.isnan(value):
            if self.optional:
                return value
            raise EventError("missing_field", self.name, f"{self.name} is NaN or missing; a number is required")
        if not self.minimum <= value <= self.maximum:
            allowed = f"{_plain(self.minimum)} to {_plain(self.maximum)}"
            raise EventError("out_of_range", self.name, f"{self.name} is {_plain(value)}; allowed is {allowed}")
        if math.isinf(value):
            raise EventError("out_of_range", self.name, f"{self.name} is infinite; it must be finite")
        if self.kind == "integer" and value != math.floor(value):
            raise EventError("wrong_type", self.name, f"{self.name} is {_plain(value)}; it must be a whole number")
        return float(value)

    def describe(self) -> dict[str, Any]:
        """Everything that gives the field its meaning, for fingerprints."""
        return {
            "name": self.name,
            "kind": self.kind,
            "minimum": str(self.minimum),
            "maximum": str(self.maximum),
            "max_bytes": self.max_bytes,
            "optional": self.optional,
            "scale": self.scale,
        }


def Text(name: str, *, max_bytes: int = MAX_ID_BYTES, optional: bool = False) -> Field:  # noqa: N802 (reads as a type)
    """A text field, for example an entity's id. At most `max_bytes` bytes of UTF-8."""
    return Field(name, "text", max_bytes=max_bytes, optional=optional)


def Integer(  # noqa: N802 (reads as a type)
    name: str, *, minimum: int = -EXACT_INTEGER, maximum: int = EXACT_INTEGER, optional: bool = False
) -> Field:
    """A whole number within `minimum` to `maximum`, at most 2^53 in size."""
    return Field(name, "integer", minimum, maximum, optional=optional)


def Money(  # noqa: N802 (reads as a type)
    name: str, *, minor_units: int = 100, minimum: int = 0, maximum: int = 2**40, optional: bool = False
) -> Field:
    """An amount in integer minor units (cents), `minor_units` to the unit that features are given in."""
    return Field(name, "integer", minimum, maximum, optional=optional, scale=minor_units)


def Number(  # noqa: N802 (reads as a type)
    name: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    optional: bool = False,
    scale: int = 1,
) -> Field:
    """A finite number, within plus and minus 2^53 / `scale` unless bounds are given.

    One that is summed is stored as round(value x scale), so it needs a `scale` that keeps what matters of it.
    """
    widest = EXACT_INTEGER / max(scale, 1)
    return Field(
        name,
        "number",
        -widest if minimum is None else minimum,
        widest if maximum is None else maximum,
        optional=optional,
        scale=scale,
    )


def Boolean(name: str, *, optional: bool = False) -> Field:  # noqa: N802 (reads as a type)
    """True or false."""
    return Field(name, "boolean", 0, 1, optional=optional)


class EventSchema:
    """The fields of an event, in order.

    Attributes:
        fields: all fields as declared.
        texts: the text fields, in order: the packed `texts` of an event.
        numbers: all other fields, in order: the packed `numbers` of an event.
    """

    def __init__(self, *fields: Field) -> None:
        names = [field.name for field in fields]
        for field in fields:
            if not field.name.isidentifier():
                raise DefinitionError(f"event field {field.name!r}: a name must be an identifier")
            if names.count(field.name) > 1:
                raise DefinitionError(f"event field {field.name!r} is declared twice")
            if field.minimum > field.maximum:
                raise DefinitionError(f"event field {field.name!r}: minimum {field.minimum} > maximum {field.maximum}")
            if field.scale < 1:
                raise DefinitionError(f"event field {field.name!r}: scale {field.scale} must be at least 1")
        self.fields = fields
        self.texts = tuple(field for field in fields if field.kind == "text")
        self.numbers = tuple(field for field in fields if field.kind != "text")

    @cached_property
    def by_name(self) -> Mapping[str, Field]:
        """Fields by name."""
        return {field.name: field for field in self.fields}

    def pack(self, values: Mapping[str, object]) -> tuple[list[str], list[float]]:
        """Check named values and bring them into packed order: texts and numbers.

        Raises:
            EventError: an unknown name, a missing field or a value that is not allowed.
        """
        for name in values:
            if name not in self.by_name:
                known = ", ".join(self.by_name)
                raise EventError("unknown_field", name, f"{name} is not a field of this pipeline; known are {known}")
        texts = [field.check_text(self._given(values, field, "")) for field in self.texts]
        return texts, [field.check_number(self._given(values, field, math.nan)) for field in self.numbers]

    @staticmethod
    def _given(values: Mapping[str, object], field: Field, absent: object) -> object:
        value = values.get(field.name)
        if value is not None:
            return value
        if not field.optional:
            raise EventError("missing_field", field.name, f"{field.name} is missing; it is required")
        return absent

    @cached_property
    def _bounds(self) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[float, float, bool], ...]]:
        """Fewest and most characters that surely fit of each text; bounds of each number, and whether it is whole."""
        return (
            # A character has four bytes at most.
            tuple((0 if field.optional else 1, field.max_bytes // 4) for field in self.texts),
            tuple((field.minimum, field.maximum, field.kind != "number") for field in self.numbers),
        )

    def plainly_follows(self, texts: Sequence[str], numbers: Sequence[float]) -> bool:
        """Whether values in packed order are allowed beyond doubt; where not, `check` says."""
        of_texts, of_numbers = self._bounds
        if len(texts) != len(of_texts) or len(numbers) != len(of_numbers):
            return False
        for text, (fewest, most) in zip(texts, of_texts, strict=False):
            if not fewest <= len(text) <= most:
                return False
        for number, (minimum, maximum, whole) in zip(numbers, of_numbers, strict=False):
            # What is not a number is within no bounds.
            if not minimum <= number <= maximum or (whole and not number.is_integer()):
                return False
        return True

    def check(self, texts: Sequence[str], numbers: Sequence[float]) -> None:
        """Check values that are in packed order.

        Raises:
            EventError: a wrong number of values or one that is not allowed.
        """
        if len(texts) != len(self.texts) or len(numbers) != len(self.numbers):
            raise EventError(
                "wrong_shape",
                "",
                f"{len(texts)} texts and {len(numbers)} numbers; the schema has {len(self.texts)} and "
                f"{len(self.numbers)}",
            )
        for field, text in zip(self.texts, texts, strict=True):
            field.check_text(text)
        for field, number in zip(self.numbers, numbers, strict=True):
            field.check_number(number)

    def describe(self) -> list[dict[str, Any]]:
        """All fields in order, for fingerprints."""
        return [field.describe() for field in self.fields]


def check_identity(event_id: str, event_time_us: int) -> None:
    """Check an event's id and time.

    Raises:
        EventError: the id is missing or over 128 bytes, or the time is missing or outside the years 1970 to 2200.
    """
    if not event_id:
        raise EventError("missing_field", "event_id", "event_id is missing; it is required text")
    if len(event_id.encode()) > MAX_ID_BYTES:
        raise EventError(
            "out_of_range", "event_id", f"event_id has {len(event_id.encode())} bytes; at most {MAX_ID_BYTES} fit"
        )
    if event_time_us == 0:
        raise EventError(
            "missing_field", "event_time_us", "event_time_us is missing; it is required, in microseconds since 1970"
        )
    if not 0 < event_time_us < LATEST_TIME_US:
        raise EventError(
            "out_of_range",
            "event_time_us",
            f"event_time_us is {event_time_us}; allowed are the years 1970 to 2200 in microseconds",
        )


LATEST_TIME_US = 7_258_118_400_000_000


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _plain(value: float) -> str:
    if math.isfinite(value) and value == math.floor(value):
        return str(int(value))
    return str(value)
