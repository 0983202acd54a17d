"""A digest of a learned model that is the same for the same state, in every process.

The bytes of a pickle also hold which equal numbers and texts are one object in memory, and the order of a set of texts.
Neither has a part in what a model answers or learns. Here values count as values, sets are sorted, and only what can
change (containers, estimators) keeps its identity: two references to one detector are not two detectors.
"""

from __future__ import annotations

import hashlib
import struct
import types
from typing import Any

from headrace.learner.river_pickle import REDUCERS


def digest(value: Any) -> str:
    """SHA-256 of a state, hexadecimal.

    Args:
        value: anything that can be pickled.
    """
    writer = _Writer(hashlib.sha256())
    writer.write(value)
    return str(writer.hash.hexdigest())


class _Writer:
    def __init__(self, into: Any) -> None:
        self.hash = into
        # Identity of what was seen -> its number; the objects are kept, so that no identity is used twice.
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []

    def write(self, value: Any) -> None:
        """Add a value."""
        kind = type(value)
        if value is None or kind is bool or kind is int:
            self._put(b"c", repr(value).encode())
        elif kind is float:
            self._put(b"f", struct.pack("<d", value))
        elif kind is str:
            self._put(b"s", value.encode("utf-8", "surrogatepass"))
        elif kind is bytes:
            self._put(b"b", value)
        elif kind is tuple:
            self._put(b"t", str(len(value)).encode())
            for item in value:
                self.write(item)
        elif isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
            self._put(b"k", f"{value.__module__}.{value.__qualname__}".encode())
        elif id(value) in self._seen:
            self._put(b"r", str(self._seen[id(value)]).encode())
        else:
            self._seen[id(value)] = len(self._kept)
            self._kept.append(value)
            self._write_object(value, kind)

    def _write_object(self, value: Any, kind: type) -> None:
        if kind is list:
            self._put(b"l", str(len(value)).encode())
            for item in value:
                self.write(item)
        elif kind is dict:
            self._put(b"d", str(len(value)).encode())
            for key, item in value.items():
                self.write(key)
                self.write(item)
        elif kind in (set, frozenset):
            self._put(b"S", "".join(sorted(digest(item) for item in value)).encode())
        else:
            self._write_reduced(value)

    def _write_reduced(self, value: Any) -> None:
        reduce = REDUCERS.get(type(value))
        reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
        if isinstance(reduced, str):
            self._put(b"k", f"{type(value).__module__}.{reduced}".encode())
            return
        make, arguments, *rest = reduced
        self._put(b"o", b"")
        self.write(make)
        self.write(arguments)
        state, items, pairs = (*rest, None, None, None)[:3]
        self.write(state)
        self._kept.append(state)
        self.write(None if items is None else list(items))
        self.write(None if pairs is None else [part for pair in pairs for part in pair])

    def _put(self, mark: bytes, content: bytes) -> None:
        self.hash.update(mark + struct.pack("<q", len(content)) + content)
