"""Feature vectors as the bytes of `FeatureVector`, for a whole batch at once.

A message object for each event costs more than its features do. What all vectors of a partition share is laid out once,
numbers become bytes in numpy, and a row is put together from its parts. The bytes are those that
`FeatureVector.SerializeToString` gives, which a test holds them to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from headrace.pipeline import Pipeline
from headrace.pipeline.events import EventColumns, FloatArray, Int64Array

_VARINT, _FIXED64, _BYTES = 0, 1, 2
_ONE_BYTE = 128


@dataclass(frozen=True)
class StatePositions:
    """What the state held when vectors were evaluated.

    Attributes:
        events: last merged offset by partition of `events`.
        outcomes: the same for `outcomes`.
        newest_us: production time of the newest record in the state, in microseconds.
    """

    events: Sequence[int]
    outcomes: Sequence[int]
    newest_us: int


class VectorEncoder:
    """Encodes the vectors of one pipeline."""

    def __init__(self, pipeline: Pipeline, topic: str) -> None:
        """Args:
        pipeline: gives entities and fingerprint.
        topic: full name of `events`.
        """
        self._entity_fields = pipeline.entity_fields
        self._fingerprint = _tag(3, _FIXED64) + pipeline.features_fingerprint.to_bytes(8, "little")
        name = topic.encode()
        self._topic = _tag(1, _BYTES) + varint(len(name)) + name
        self._prefixes = {field: [_tag(field, _BYTES) + varint(n) for n in range(_ONE_BYTE)] for field in (1, 5)}

    def encode(
        self,
        partition: int,
        events: EventColumns,
        offsets: Int64Array,
        produced_us: Int64Array,
        values: FloatArray,
        positions: StatePositions,
        late: Sequence[bool],
    ) -> list[bytes]:
        """The vectors of n events of one partition.

        Args:
            partition: of `events`.
            events: the events.
            offsets: their offsets, shape (n,).
            produced_us: their Kafka timestamps in microseconds, shape (n,).
            values: their features, shape (n, width).
            positions: what the state held.
            late: whether each event was too late to be exact, n.
        """
        packed = np.ascontiguousarray(values, "<f8").tobytes()
        width = len(packed) // max(len(offsets), 1)
        head = self._fingerprint + (_tag(4, _BYTES) + varint(width) if width else b"")
        source = self._topic + _number(2, partition)
        after = _positions(7, positions.events) + _positions(8, positions.outcomes) + _number(9, positions.newest_us)
        parts: list[Iterable[bytes]] = [
            self._texts(1, events.ids),
            _numbers(2, events.times),
            repeat(head),
            [packed[at : at + width] for at in range(0, len(packed), width)] if width else repeat(b""),
            *(self._texts(5, events.texts[field]) for field in self._entity_fields),
            _nested(6, source, _numbers(3, offsets)),
            repeat(after),
            _numbers(10, produced_us),
        ]
        if any(late):
            parts.append([_number(11, int(one)) for one in late])
        return list(map(b"".join, zip(*parts, strict=False)))

    def _texts(self, field: int, texts: Sequence[str]) -> list[bytes]:
        prefixes = self._prefixes[field]
        encoded = [text.encode() for text in texts]
        if max(map(len, encoded), default=0) < _ONE_BYTE:
            return [prefixes[len(one)] + one for one in encoded]
        return [_tag(field, _BYTES) + varint(len(one)) + one for one in encoded]


def varint(number: int) -> bytes:
    """A number as protobuf has it: seven bits a byte, lowest first; a negative one as its 64-bit complement."""
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number >= _ONE_BYTE:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def varints(numbers: Int64Array) -> list[bytes]:
    """`varint` of n numbers."""
    rest = numbers.astype(np.uint64)
    if not len(rest):
        return []
    shortest, longest = len(varint(int(rest.min()))), len(varint(int(rest.max())))
    shifts = np.arange(0, 7 * longest, 7, dtype=np.uint64)
    septets = ((rest[:, None] >> shifts) & np.uint64(127)).astype(np.uint8)
    if shortest == longest:
        septets[:, :-1] |= 128
        encoded = septets.tobytes()
        return [encoded[at : at + longest] for at in range(0, len(encoded), longest)]
    lengths = 1 + (rest[:, None] >= np.uint64(1) << shifts[1:]).sum(1)
    septets[np.arange(longest) < lengths[:, None] - 1] |= 128
    encoded = septets.tobytes()
    starts = range(0, len(encoded), longest)
    return [encoded[at : at + length] for at, length in zip(starts, lengths.tolist(), strict=True)]


def _tag(field: int, kind: int) -> bytes:
    return varint(field << 3 | kind)


def _number(field: int, number: int) -> bytes:
    """A field of a number; nothing for 0, which is what an absent field says."""
    return _tag(field, _VARINT) + varint(number) if number else b""


def _numbers(field: int, numbers: Int64Array) -> list[bytes]:
    tag = _tag(field, _VARINT)
    encoded = [tag + one for one in varints(numbers)]
    for row in np.flatnonzero(numbers == 0).tolist():
        encoded[row] = b""
    return encoded


def _nested(field: int, head: bytes, rests: Iterable[bytes]) -> list[bytes]:
    tag = _tag(field, _BYTES)
    heads: dict[int, bytes] = {}
    encoded = []
    for rest in rests:
        before = heads.get(len(rest))
        if before is None:
            before = heads[len(rest)] = tag + varint(len(head) + len(rest)) + head
        encoded.append(before + rest)
    return encoded


def _positions(field: int, positions: Sequence[int]) -> bytes:
    if not positions:
        return b""
    packed = b"".join(varint(at << 1 ^ at >> 63) for at in positions)
    return _tag(field, _BYTES) + varint(len(packed)) + packed
