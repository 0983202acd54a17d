"""Columns of values as fields of protobuf messages, for a whole batch at once. Pure.

A message object for each row costs more than what is in it. Here a field of n rows becomes n byte strings, and a row is
put together from its parts. Fields at their default are left out, so that the bytes are those that
`SerializeToString` gives.

Source: the protocol buffers encoding guide (wire types, varints, packed fields).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from headrace.pipeline.events import FloatArray, Int64Array

_VARINT, _FIXED64, _BYTES = 0, 1, 2
_ONE_BYTE = 128
# Below it, numbers are encoded faster one by one.
_FEW = 16
_SMALL = [bytes((number,)) for number in range(_ONE_BYTE)]


def varint(number: int) -> bytes:
    """A number as protobuf has it: seven bits a byte, lowest first; a negative one as its 64-bit complement."""
    if 0 <= number < _ONE_BYTE:
        return _SMALL[number]
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number >= _ONE_BYTE:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def varints(numbers: Int64Array) -> list[bytes]:
    """`varint` of n numbers."""
    if len(numbers) < _FEW:
        return [varint(number) for number in numbers.tolist()]
    rest = numbers.astype(np.uint64)
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


def number(field: int, value: int) -> bytes:
    """A field of one integer, boolean or enum."""
    return _tag(field, _VARINT) + varint(value) if value else b""


def numbers(field: int, values: Int64Array) -> list[bytes]:
    """A field of integers in n rows."""
    tag = _tag(field, _VARINT)
    encoded = [tag + one for one in varints(values)]
    for row in np.flatnonzero(values == 0).tolist():
        encoded[row] = b""
    return encoded


def fixed64(field: int, value: int) -> bytes:
    """A field of one `fixed64`."""
    return _tag(field, _FIXED64) + value.to_bytes(8, "little") if value else b""


def doubles(field: int, values: FloatArray) -> list[bytes]:
    """A field of `double`s in n rows."""
    tag, packed = _tag(field, _FIXED64), np.ascontiguousarray(values, "<f8").tobytes()
    encoded = [tag + packed[at : at + 8] for at in range(0, len(packed), 8)]
    # -0.0 is no default.
    for row in np.flatnonzero((values == 0) & ~np.signbit(values)).tolist():
        encoded[row] = b""
    return encoded


def packed_doubles(field: int, rows: FloatArray) -> list[bytes]:
    """A field of repeated `double`s in n rows of equal width, shape (n, width)."""
    packed = np.ascontiguousarray(rows, "<f8").tobytes()
    width = rows.shape[1] * 8
    if not width:
        return [b""] * len(rows)
    head = _tag(field, _BYTES) + varint(width)
    return [head + packed[at : at + width] for at in range(0, len(packed), width)]


def text(field: int, value: str | bytes) -> bytes:
    """A field of one text, bytes or encoded message."""
    encoded = value.encode() if isinstance(value, str) else value
    return _tag(field, _BYTES) + varint(len(encoded)) + encoded if encoded else b""


def element(field: int, value: str | bytes) -> bytes:
    """One element of a repeated field of texts: it is there even if it is empty."""
    encoded = value.encode() if isinstance(value, str) else value
    return _tag(field, _BYTES) + varint(len(encoded)) + encoded


def texts(field: int, values: Iterable[str]) -> list[bytes]:
    """A field of texts in n rows; an empty one is there all the same, as in a repeated field."""
    return elements(field, [value.encode() for value in values])


def elements(field: int, values: Sequence[bytes]) -> list[bytes]:
    """A field of bytes or encoded messages in n rows; an empty one is there all the same."""
    if max(map(len, values), default=0) < _ONE_BYTE:
        prefixes = _short_prefixes(field)
        return [prefixes[len(one)] + one for one in values]
    return [element(field, one) for one in values]


def nested(field: int, head: bytes, rests: Iterable[bytes]) -> list[bytes]:
    """A field of messages in n rows that begin alike.

    Args:
        field: its number.
        head: what all of them begin with.
        rests: what follows in each.
    """
    tag = _tag(field, _BYTES)
    heads: dict[int, bytes] = {}
    encoded = []
    for rest in rests:
        before = heads.get(len(rest))
        if before is None:
            before = heads[len(rest)] = tag + varint(len(head) + len(rest)) + head
        encoded.append(before + rest)
    return encoded


def packed_enums(field: int, values: Sequence[int]) -> bytes:
    """A field of repeated enums or non-negative integers."""
    return text(field, b"".join(map(varint, values)))


def packed_sint64(field: int, values: Sequence[int]) -> bytes:
    """A field of repeated `sint64`."""
    return text(field, b"".join(varint(one << 1 ^ one >> 63) for one in values))


@cache
def _tag(field: int, kind: int) -> bytes:
    return varint(field << 3 | kind)


@cache
def _short_prefixes(field: int) -> list[bytes]:
    """What comes before bytes of each length below 128."""
    return [_tag(field, _BYTES) + length for length in _SMALL]
