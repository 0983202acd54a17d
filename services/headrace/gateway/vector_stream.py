"""Vectors of the assigned partitions of `vectors`: each once, in order, of known features only. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from headrace.pipeline.errors import EventError
from headrace.platform.rejected_records import REPLAY_HEADER, reject
from headrace.v1.event_pb2 import Rejected
from headrace.v1.vector_pb2 import FeatureVector


@dataclass
class VectorBatch:
    """Vectors to score together, and where that leaves each partition.

    Attributes:
        vectors: to be scored, all of one features fingerprint.
        unusable: what is set aside of others.
        redelivered: how many were dropped as seen before.
        next_offsets: for each partition of the batch the offset behind its last record taken.
        highest: for each partition of the batch the highest source offset seen.
        waiting: for each partition that stops at a vector of other features, its offset and the vector.
    """

    vectors: list[FeatureVector] = field(default_factory=list)
    unusable: list[Rejected] = field(default_factory=list)
    redelivered: int = 0
    next_offsets: dict[int, int] = field(default_factory=dict)
    highest: dict[int, int] = field(default_factory=dict)
    waiting: dict[int, tuple[int, FeatureVector]] = field(default_factory=dict)

    def metadata(self, partition: int) -> str:
        """What is committed beside the offset of a partition."""
        return str(self.highest[partition])


def highest_of(metadata: str) -> int:
    """The highest source offset seen from what is committed beside an offset; -1 for none."""
    return int(metadata) if metadata else -1


def take(
    records: Mapping[int, Sequence[Any]], highest: Mapping[int, int], features_fingerprint: int, width: int
) -> VectorBatch:
    """Sort out records.

    Args:
        records: Kafka records by partition, in offset order.
        highest: highest source offset seen by partition; a vector at or below it was seen before.
        features_fingerprint: of the features that can be scored.
        width: their number.
    """
    batch = VectorBatch()
    for partition, of_partition in records.items():
        seen = highest.get(partition, -1)
        for record in of_partition:
            vector = FeatureVector()
            try:
                vector.ParseFromString(record.value or b"")
            except DecodeError as error:
                _set_aside(batch, record, "undecodable", f"the value is no protobuf FeatureVector: {error}")
                batch.next_offsets[partition], batch.highest[partition] = record.offset + 1, seen
                continue
            # One that was set aside before and is brought back comes behind others that were behind it.
            brought_back = any(name == REPLAY_HEADER for name, _ in record.headers)
            known = vector.source.offset <= seen and not brought_back
            if not known and vector.features_fingerprint != features_fingerprint and vector.event_id:
                batch.waiting[partition] = (record.offset, vector)
                break
            if known:
                batch.redelivered += 1
            elif len(vector.values) != width or not vector.event_id:
                detail = f"{len(vector.values)} values and the event id {vector.event_id!r}; {width} values are due"
                _set_aside(batch, record, "wrong_shape", detail)
            else:
                batch.vectors.append(vector)
                seen = max(seen, vector.source.offset)
            batch.next_offsets[partition], batch.highest[partition] = record.offset + 1, seen
    return batch


def _set_aside(batch: VectorBatch, record: Any, reason: str, detail: str) -> None:
    batch.unusable.append(reject(record, EventError(reason, "", detail), "gateway"))
