"""Predictions as the bytes of `Prediction`, for a whole batch at once.

A message object for each answer costs several times what its score does. What the answers of a batch share is laid out
once, numbers become bytes in numpy, and a row is put together from its parts. The bytes are those that
`Prediction.SerializeToString` gives, which a test holds them to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat

import numpy as np
import numpy.typing as npt

from headrace.gateway.answers import Maker
from headrace.pipeline import Pipeline
from headrace.pipeline.events import FloatArray, Int64Array
from headrace.platform import wire_format as wire
from headrace.v1.prediction_pb2 import Channel, Degradation, Role


@dataclass(frozen=True, slots=True)
class PredictionRows:
    """What n predictions say of their events, whatever scored them.

    Attributes:
        prediction_ids: their ids.
        event_ids: ids of the events.
        times: event times in microseconds, shape (n,).
        values: features, shape (n, width), float64.
        entities: for each entity of the pipeline the ids of the n events.
        positions: for each what `position_fields` gives.
        freshness: for each what `freshness_field` gives.
        calls: for each what `call_fields` and `received_fields` give.
    """

    prediction_ids: Sequence[str]
    event_ids: Sequence[str]
    times: Int64Array
    values: FloatArray
    entities: Sequence[Sequence[str]]
    positions: Sequence[bytes]
    freshness: Sequence[bytes]
    calls: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.event_ids)

    def take(self, rows: npt.NDArray[np.intp]) -> PredictionRows:
        """Some of them, in the given order."""
        if len(rows) == len(self):
            return self
        at = rows.tolist()
        return PredictionRows(
            [self.prediction_ids[row] for row in at],
            [self.event_ids[row] for row in at],
            self.times[rows],
            self.values[rows],
            [[ids[row] for row in at] for ids in self.entities],
            [self.positions[row] for row in at],
            [self.freshness[row] for row in at],
            [self.calls[row] for row in at],
        )


class PredictionEncoder:
    """Encodes the predictions of one pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Args:
        pipeline: gives the fingerprint.
        """
        self._fingerprint = wire.fixed64(12, pipeline.features_fingerprint)

    def encode(
        self,
        rows: PredictionRows,
        *,
        role: Role.ValueType,
        scores: FloatArray,
        decisions: Sequence[str],
        maker: Maker,
        degradations: tuple[Degradation.ValueType, ...],
        answered_us: int,
        with_vector: bool = True,
    ) -> list[bytes]:
        """n predictions of one version.

        Args:
            rows: their events.
            role: of all of them.
            scores: shape (n,).
            decisions: n.
            maker: what made the scores.
            degradations: what was missing, that of the maker included.
            answered_us: when they were made, wall clock, in microseconds.
            with_vector: whether what they were made from goes with them, which is most of their size.
        """
        made = {decision: _made_fields(maker, degradations, decision) for decision in set(decisions)}
        after = wire.number(18, maker.choice.version.model_time_us) + wire.number(19, answered_us)
        parts: list[Iterable[bytes]] = [
            wire.texts(1, rows.prediction_ids),
            wire.texts(2, rows.event_ids),
            wire.numbers(3, rows.times),
            repeat(wire.number(4, role)),
            wire.doubles(5, scores),
            [made[decision] for decision in decisions],
        ]
        if with_vector:
            parts += [repeat(self._fingerprint), wire.packed_doubles(13, rows.values)]
            parts += [wire.texts(14, ids) for ids in rows.entities]
            parts.append(rows.positions)
        parts += [rows.freshness, repeat(after), rows.calls]
        return list(map(b"".join, zip(*parts, strict=False)))


def _made_fields(maker: Maker, degradations: tuple[Degradation.ValueType, ...], decision: str) -> bytes:
    choice = maker.choice
    return (
        wire.text(6, decision)
        + wire.text(7, choice.version.version)
        + wire.number(8, choice.route)
        + wire.number(9, choice.epoch)
        + wire.number(10, int(choice.version.untrained))
        + wire.packed_enums(11, degradations)
    )


def position_fields(events: Sequence[int], outcomes: Sequence[int]) -> bytes:
    """Where the state stood that features were read from.

    Args:
        events: last merged offset by partition of `events`.
        outcomes: the same for `outcomes`.
    """
    return wire.packed_sint64(15, events) + wire.packed_sint64(16, outcomes)


def freshness_field(features_time_us: int) -> bytes:
    """Production time of the newest record in the state that was read, in microseconds."""
    return wire.number(17, features_time_us)


@lru_cache(maxsize=256)
def call_fields(
    channel: Channel.ValueType, source: bytes, overridden: tuple[str, ...], *, ingested: bool
) -> tuple[bytes, bytes]:
    """What comes from the call or the record that asked: before and after the time that it came.

    Args:
        channel: by which way it came.
        source: encoded `SourcePosition`; empty for none.
        overridden: names of features whose values the caller gave.
        ingested: whether the event is part of the state, or is to be.
    """
    before = wire.number(20, channel) + wire.text(21, source) + wire.number(22, int(ingested))
    return before, b"".join([wire.element(24, name) for name in overridden])


def received_fields(received_us: Sequence[int]) -> list[bytes]:
    """When calls or records came, in microseconds: between the two parts of `call_fields`."""
    return wire.numbers(23, np.array(received_us, np.int64))
