"""Frames of HTTP/2 as no client of gRPC sends them, and messages with mistakes that a seed decides."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Headers as literals, without a table and without Huffman codes."""
    block = b""
    for name, value in fields:
        block += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return block


def call_headers(method: str) -> bytes:
    """Headers of a call."""
    return header_block(
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", f"/headrace.v1.PredictionService/{method}"),
            (":authority", "x"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
    )


def opened(*frames: bytes) -> bytes:
    """A connection that begins as it should."""
    return PREFACE + frame(SETTINGS) + b"".join(frames)


def hostile_connections(seed: int) -> dict[str, bytes]:
    """What is sent on a connection, by what it is."""
    noise = random.Random(seed)
    call = call_headers("Predict")
    streams = range(1, 8001, 2)
    return {
        "noise": noise.randbytes(5000),
        "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "TLS": bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]) + noise.randbytes(500),
        "preface and noise": PREFACE + noise.randbytes(5000),
        "a frame larger than allowed": opened(b"\xff\xff\xff\x00\x00\0\0\0\1" + noise.randbytes(100_000)),
        "noise as headers": opened(frame(HEADERS, noise.randbytes(4000), END_HEADERS, 1)),
        "calls that are reset at once": opened(
            *(frame(HEADERS, call, END_HEADERS, one) + frame(RST_STREAM, bytes(4), 0, one) for one in streams)
        ),
        "headers without end": opened(frame(HEADERS, call, 0, 1), frame(CONTINUATION, bytes(16_000), 0, 1) * 200),
        "empty headers without end": opened(frame(HEADERS, call, 0, 1), frame(CONTINUATION, b"", 0, 1) * 20_000),
        "settings": opened(frame(SETTINGS, struct.pack(">HI", 4, 1000)) * 20_000),
        "pings": opened(frame(PING, bytes(8)) * 20_000),
        "empty data": opened(frame(HEADERS, call, END_HEADERS, 1), frame(DATA, b"", 0, 1) * 20_000),
        "a window beyond its limit": opened(frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff") * 3),
        "a message that says it has 4 GB": opened(
            frame(HEADERS, call, END_HEADERS, 1), frame(DATA, b"\0\xff\xff\xff\xff" + bytes(1000), 0, 1)
        ),
        "a compressed message, and no word of how": opened(
            frame(HEADERS, call, END_HEADERS, 1), frame(DATA, b"\1\0\0\0\4abcd", END_STREAM, 1)
        ),
        "half a message": opened(frame(HEADERS, call, END_HEADERS, 1), frame(DATA, b"\0\0\0\1\0abc", END_STREAM, 1)),
    }


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A serialized message with a few mistakes: bytes changed, left out, doubled, put in, or the end cut off."""
    found = bytearray(content)
    for _ in range(chance.randint(1, 2)):
        at = chance.randrange(len(found) + 1)
        match chance.randrange(10):
            case 0 | 6 | 7 | 8 | 9 if at < len(found):
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                found[at:at] = chance.randbytes(chance.randint(1, 8))
            case 2:
                del found[at : at + chance.randint(1, 8)]
            case 3:
                found[at:at] = found[at : at + chance.randint(1, 40)]
            case 4:
                # The doubles and integers that nobody expects.
                found[at : at + 8] = chance.choice(ODD)
            case _:
                del found[at + (len(found) - at) // 2 :]
    return bytes(found)


ODD = [struct.pack("<d", one) for one in (float("nan"), float("inf"), float("-inf"), 1e308, 5e-324, -0.0)] + [
    b"\xff" * 8,
    bytes(8),
    b"\x80" * 7 + b"\x01",
]
