"""Files of messages as bytes, each with its length before it, as protobuf's languages read and write them. Pure.

Apart from what makes requests, so that a client process starts fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def write_delimited(path: Path, messages: Sequence[bytes]) -> None:
    """Write messages, each with its length before it."""
    with path.open("wb") as file:
        for content in messages:
            file.write(_varint(len(content)) + content)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def read_delimited(path: Path) -> list[bytes]:
    """What `write_delimited` wrote."""
    content, at, found = path.read_bytes(), 0, []
    while at < len(content):
        size = shift = 0
        while True:
            byte = content[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        found.append(content[at : at + size])
        at += size
    return found
