"""Predictions of the Kafka path, in columns: made from vectors, recorded without them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.gateway.prediction_encoding import PredictionRows, freshness_field, position_fields, received_fields
from headrace.gateway.repeats import repeat_of
from headrace.pipeline.events import FloatArray
from headrace.platform import wire_format as wire
from headrace.v1.event_pb2 import SourcePosition
from headrace.v1.prediction_pb2 import CHANNEL_KAFKA, Prediction
from headrace.v1.vector_pb2 import FeatureVector

CHANNEL = wire.number(20, CHANNEL_KAFKA)
INGESTED = wire.number(22, 1)


def prediction_rows(vectors: Sequence[FeatureVector], values: FloatArray) -> PredictionRows:
    """What the predictions of n vectors say of their events; their ids follow from the places of the events.

    Args:
        vectors: the vectors, at least one.
        values: their values, shape (n, width), float64.
    """
    # The vectors of one batch of the feature worker hold at the same positions.
    positions: dict[tuple[tuple[int, ...], tuple[int, ...]], bytes] = {}
    freshness: dict[int, bytes] = {}
    sources = [vector.source for vector in vectors]
    at, fresh = [], []
    for vector in vectors:
        key = tuple(vector.event_positions), tuple(vector.outcome_positions)
        if key not in positions:
            positions[key] = position_fields(*key)
        at.append(positions[key])
        time_us = vector.features_time_us
        if time_us not in freshness:
            freshness[time_us] = freshness_field(time_us)
        fresh.append(freshness[time_us])
    calls = [
        CHANNEL + source + INGESTED + at
        for source, at in zip(
            wire.elements(21, _source_positions(sources)),
            received_fields([vector.produced_time_us for vector in vectors]),
            strict=True,
        )
    ]
    return PredictionRows(
        [f"k-{source.partition}-{source.offset}" for source in sources],
        [vector.event_id for vector in vectors],
        np.array([vector.event_time_us for vector in vectors], np.int64),
        values,
        list(zip(*(vector.entities for vector in vectors), strict=False)),
        at,
        fresh,
        calls,
    )


def _source_positions(sources: Sequence[SourcePosition]) -> list[bytes]:
    """Encoded, n."""
    topics = {source.topic: wire.text(1, source.topic) for source in sources}
    offsets = wire.numbers(3, np.array([source.offset for source in sources], np.int64))
    return [
        topics[source.topic] + wire.number(2, source.partition) + offset
        for source, offset in zip(sources, offsets, strict=True)
    ]


def answer_of(before: bytes, prediction: Prediction) -> Prediction:
    """What an event that has an answer already is answered with.

    Args:
        before: the first answer, as recorded.
        prediction: what its vector would have got now.
    """
    first = Prediction.FromString(before)
    if first.HasField("source") and first.source == prediction.source:
        # Scored before and not committed. Others may have got that answer, so it stays as it was.
        return _with_vector_of(first, prediction)
    return repeat_of(before, prediction)


def _with_vector_of(first: Prediction, prediction: Prediction) -> Prediction:
    """The answer that was recorded without its vector, with it again."""
    answer = Prediction()
    answer.CopyFrom(first)
    for field in ("features", "entities", "event_positions", "outcome_positions"):
        answer.ClearField(field)
        getattr(answer, field).extend(getattr(prediction, field))
    answer.features_fingerprint = prediction.features_fingerprint
    return answer
