"""What the join keeps of one event, and its form in the store. Pure.

An event is *waiting* while only labels or shadow scores of it have come, *answered* once its primary prediction has
come (with the label in use, where there is one), and *closed* when its horizon has passed: known by its id alone, so
that a late label or a late repeat is recognised as such.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

StateKind = Literal["waiting", "unlabelled", "labelled", "closed"]


class UsedLabel(NamedTuple):
    """One label of an event."""

    value: float
    time_us: int
    """When the label became known, in microseconds since 1970-01-01 UTC."""
    offset: int
    """In `labels`."""


class Shadow(NamedTuple):
    """The score of a version that ran beside the answer."""

    model_version: str
    score: float


@dataclass(slots=True)
class Waiting:
    """Labels and shadow scores whose answer has not come.

    Attributes:
        due_us: event time at which they are given up, in microseconds.
        labels: in log order, which is by label time too: older ones than the newest are not kept.
        shadows: one for each model version.
    """

    due_us: int
    labels: list[UsedLabel] = field(default_factory=list)
    shadows: list[Shadow] = field(default_factory=list)


@dataclass(slots=True)
class Answered:
    """The primary prediction.

    Attributes:
        due_us: event time at which its label is given up, in microseconds.
        prediction: the serialized `Prediction`.
        offset: in `predictions`.
        label: the label in use, None while there is none.
        shadows: one for each model version.
    """

    due_us: int
    prediction: bytes
    offset: int
    label: UsedLabel | None = None
    shadows: list[Shadow] = field(default_factory=list)


@dataclass(slots=True)
class Closed:
    """An event whose horizon has passed.

    Attributes:
        due_us: event time at which its id is forgotten, in microseconds.
    """

    due_us: int


EventState = Waiting | Answered | Closed

_CLOSED = struct.Struct("<cq")
_WAITING = struct.Struct("<cqHH")
_ANSWERED = struct.Struct("<cqq?dqqH")
_LABEL = struct.Struct("<dqq")
_SHADOW = struct.Struct("<dH")
_NO_LABEL = UsedLabel(0.0, 0, 0)


class Stored(NamedTuple):
    """What the store must know of a state to replace it."""

    kind: StateKind
    due_us: int


def stored_as(states: Mapping[bytes, EventState]) -> dict[bytes, Stored]:
    """How events are stored, to be noted before their states are changed in place."""
    return {event_id: Stored(kind_of(state), state.due_us) for event_id, state in states.items()}


def kind_of(state: EventState) -> StateKind:
    """The state in a word, for counting."""
    if isinstance(state, Answered):
        return "unlabelled" if state.label is None else "labelled"
    return "waiting" if isinstance(state, Waiting) else "closed"


def encode(state: EventState) -> bytes:
    """The state as bytes."""
    if isinstance(state, Answered):
        label = state.label or _NO_LABEL
        head = _ANSWERED.pack(b"A", state.due_us, state.offset, state.label is not None, *label, len(state.shadows))
        return head + _encode_shadows(state.shadows) + state.prediction if state.shadows else head + state.prediction
    if isinstance(state, Closed):
        return _CLOSED.pack(b"C", state.due_us)
    head = _WAITING.pack(b"W", state.due_us, len(state.labels), len(state.shadows))
    return head + b"".join(_LABEL.pack(*label) for label in state.labels) + _encode_shadows(state.shadows)


def decode(stored: bytes) -> EventState:
    """The state from `encode`.

    Raises:
        ValueError: the bytes are something else.
    """
    kind = stored[:1]
    try:
        if kind == b"A":
            _, due, offset, labelled, value, time, label_offset, count = _ANSWERED.unpack_from(stored)
            shadows, at = _decode_shadows(stored, _ANSWERED.size, count) if count else ([], _ANSWERED.size)
            label = UsedLabel(value, time, label_offset) if labelled else None
            return Answered(due, stored[at:], offset, label, shadows)
        if kind == b"C":
            return Closed(_CLOSED.unpack(stored)[1])
        if kind == b"W":
            _, due, labels, count = _WAITING.unpack_from(stored)
            at = _WAITING.size
            found = [UsedLabel(*_LABEL.unpack_from(stored, at + n * _LABEL.size)) for n in range(labels)]
            shadows, _ = _decode_shadows(stored, at + labels * _LABEL.size, count)
            return Waiting(due, found, shadows)
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"the stored state of an event is damaged: {error}") from error
    raise ValueError(f"the stored state of an event begins with {kind!r}")


def _encode_shadows(shadows: list[Shadow]) -> bytes:
    parts = []
    for shadow in shadows:
        name = shadow.model_version.encode()
        parts.append(_SHADOW.pack(shadow.score, len(name)) + name)
    return b"".join(parts)


def _decode_shadows(stored: bytes, at: int, count: int) -> tuple[list[Shadow], int]:
    shadows = []
    for _ in range(count):
        score, length = _SHADOW.unpack_from(stored, at)
        at += _SHADOW.size
        shadows.append(Shadow(stored[at : at + length].decode(), score))
        at += length
    return shadows, at
