"""Feature vectors as the bytes of `FeatureVector`, for a whole batch at once.

A message object for each event costs more than its features do. What all vectors of a partition share is laid out once,
numbers become bytes in numpy, and a row is put together from its parts. The bytes are those that
`FeatureVector.SerializeToString` gives, which a test holds them to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

from headrace.pipeline import Pipeline
from headrace.pipeline.events import EventColumns, FloatArray, Int64Array
from headrace.platform import wire_format as wire


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
        self._fingerprint = wire.fixed64(3, pipeline.features_fingerprint)
        self._topic = wire.text(1, topic)

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
        after = (
            wire.packed_sint64(7, positions.events)
            + wire.packed_sint64(8, positions.outcomes)
            + wire.number(9, positions.newest_us)
        )
        parts: list[Iterable[bytes]] = [
            wire.texts(1, events.ids),
            wire.numbers(2, events.times),
            repeat(self._fingerprint),
            wire.packed_doubles(4, values),
            *(wire.texts(5, events.texts[field]) for field in self._entity_fields),
            wire.nested(6, self._topic + wire.number(2, partition), wire.numbers(3, offsets)),
            repeat(after),
            wire.numbers(10, produced_us),
        ]
        if any(late):
            parts.append([wire.number(11, int(one)) for one in late])
        return list(map(b"".join, zip(*parts, strict=False)))
