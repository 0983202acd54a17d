"""The order in which the outcomes of one version were learned, as a file.

Layout: one magic line, one line of JSON (version, parent, the parent's order log, count), then `count` partitions as
little-endian int32 and `count` offsets as little-endian int64. Each log names its parent's by SHA-256, so that the
signature of the newest covers the whole chain back to version 0. The log of a version that was merged from what several
learners made of their shares has no positions of its own: it names theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.learner.errors import SnapshotError
from headrace.v1.model_pb2 import Artifact

_MAGIC = b"headrace order log 1\n"


@dataclass(frozen=True)
class ShardOrder:
    """What one of several learners brought to a version.

    Attributes:
        shard: its number.
        order: its order log, from the parent on.
        snapshot: the state that this order led to.
        learned: outcomes that it learned.
    """

    shard: int
    order: Artifact
    snapshot: Artifact
    learned: int


@dataclass(frozen=True)
class OrderLog:
    """Positions in `outcomes`, in the order they were learned since the parent.

    Attributes:
        version: the version that they lead to.
        parent: the version they start from; empty for the first.
        parent_order: the parent's order log; None for the first version.
        partitions: int32 [n].
        offsets: int64 [n].
        base: snapshot of this version where it was not learned from `outcomes` but from a history: a replay begins
            there. None for all others.
        shards: where the version was merged: from what, by number.
    """

    version: str
    parent: str
    parent_order: Artifact | None
    partitions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    base: Artifact | None = None
    shards: tuple[ShardOrder, ...] = ()


def encode(log: OrderLog) -> bytes:
    """The file of an order log."""
    header: dict[str, Any] = {
        "version": log.version,
        "parent": log.parent,
        "parent_order": _described(log.parent_order),
        "count": len(log.offsets),
    }
    if log.base is not None:
        header["base"] = _described(log.base)
    if log.shards:
        header["shards"] = [
            {
                "shard": one.shard,
                "order": _described(one.order),
                "snapshot": _described(one.snapshot),
                "learned": one.learned,
            }
            for one in log.shards
        ]
    return b"".join(
        [
            _MAGIC,
            json.dumps(header, separators=(",", ":")).encode(),
            b"\n",
            log.partitions.astype("<i4").tobytes(),
            log.offsets.astype("<i8").tobytes(),
        ]
    )


def decode(content: bytes) -> OrderLog:
    """Read an order log.

    Raises:
        SnapshotError: the bytes are not a whole order log.
    """
    if not content.startswith(_MAGIC):
        raise SnapshotError("not an order log: the first line is unknown")
    try:
        end = content.index(b"\n", len(_MAGIC))
        header = json.loads(content[len(_MAGIC) : end])
        count, named = int(header["count"]), header["parent_order"]
        body = content[end + 1 :]
        if len(body) != count * 12:
            raise SnapshotError(f"order log of {header['version']}: {len(body)} bytes for {count} positions")
        return OrderLog(
            version=str(header["version"]),
            parent=str(header["parent"]),
            parent_order=_artifact(named),
            partitions=np.frombuffer(body, "<i4", count).astype(np.int32),
            offsets=np.frombuffer(body, "<i8", count, offset=count * 4).astype(np.int64),
            base=_artifact(header.get("base")),
            shards=tuple(_shard(one) for one in header.get("shards", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotError(f"order log is damaged: {error!r}") from error


def _shard(described: Mapping[str, Any]) -> ShardOrder:
    order, state = _artifact(described["order"]), _artifact(described["snapshot"])
    if order is None or state is None:
        raise KeyError("artifacts of a shard")
    return ShardOrder(int(described["shard"]), order, state, int(described["learned"]))


def _described(artifact: Artifact | None) -> dict[str, Any] | None:
    if artifact is None:
        return None
    return {
        "uri": artifact.uri,
        "sha256": artifact.sha256.hex(),
        "size_bytes": artifact.size_bytes,
        "signature": artifact.signature.hex(),
    }


def _artifact(described: Mapping[str, Any] | None) -> Artifact | None:
    if described is None:
        return None
    return Artifact(
        uri=str(described["uri"]),
        sha256=bytes.fromhex(described["sha256"]),
        size_bytes=int(described["size_bytes"]),
        signature=bytes.fromhex(described["signature"]),
    )
