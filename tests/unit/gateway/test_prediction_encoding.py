"""Predictions encoded together are the bytes that their messages would have."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.answers import Maker
from headrace.gateway.prediction_encoding import (
    PredictionEncoder,
    PredictionRows,
    call_fields,
    freshness_field,
    position_fields,
    received_fields,
)
from headrace.gateway.routing import Choice, ServedVersion
from headrace.pipeline import Pipeline
from headrace.platform import wire_format as wire
from headrace.platform.pipelines import load_pipeline
from headrace.v1.event_pb2 import SourcePosition
from headrace.v1.model_pb2 import Artifact
from headrace.v1.prediction_pb2 import CHANNEL_KAFKA, Prediction

PIPELINE: Pipeline = load_pipeline("pipelines/fraud.py")
WIDTH = len(PIPELINE.feature_names)
Text = st.text(max_size=150)
Int64 = st.integers(-(2**63), 2**63 - 1)
Positions = st.lists(st.integers(-1, 2**40), max_size=4)
Row = st.tuples(
    Text,
    Text,
    Int64,
    st.floats(allow_nan=False),
    st.sampled_from(["review", "accept"]),
    st.lists(st.floats(allow_nan=False), min_size=WIDTH, max_size=WIDTH),
    st.tuples(Text, Text),
    Positions,
    Positions,
    Int64,
    st.integers(0, 2**40),
    st.lists(st.sampled_from(PIPELINE.feature_names), unique=True, max_size=2),
)


def version(untrained: bool, model_time_us: int) -> ServedVersion:
    return ServedVersion(
        "000007", "fraud-000007", PIPELINE.features_fingerprint, untrained, model_time_us, Artifact(), WIDTH
    )


@given(
    rows=st.lists(Row, min_size=1, max_size=6),
    untrained=st.booleans(),
    model_time_us=Int64,
    answered_us=Int64,
    role=st.sampled_from([1, 2]),
    route=st.sampled_from([1, 2, 3, 4]),
    degradations=st.lists(st.sampled_from([1, 2, 3, 4]), unique=True),
    with_vector=st.booleans(),
)
def test_bytes_of_many_are_those_of_each(
    rows: list[Any],
    untrained: bool,
    model_time_us: int,
    answered_us: int,
    role: Any,
    route: Any,
    degradations: list[Any],
    with_vector: bool,
) -> None:
    maker = Maker(Choice(version(untrained, model_time_us), route, 9), in_process=False)
    sources = [SourcePosition(topic="fraud.events", partition=3, offset=row[10]) for row in rows]
    received = received_fields([row[9] for row in rows])
    calls = []
    for row, source, at in zip(rows, sources, received, strict=True):
        place = wire.text(1, source.topic) + wire.number(2, 3) + wire.number(3, source.offset)
        before, after = call_fields(CHANNEL_KAFKA, place, tuple(row[11]), ingested=True)
        calls.append(before + at + after)
    encoded = PredictionEncoder(PIPELINE).encode(
        PredictionRows(
            [row[0] for row in rows],
            [row[1] for row in rows],
            np.array([row[2] for row in rows], np.int64),
            np.array([row[5] for row in rows]),
            [[row[6][entity] for row in rows] for entity in range(2)],
            [position_fields(row[7], row[8]) for row in rows],
            [freshness_field(row[9]) for row in rows],
            calls,
        ),
        role=role,
        scores=np.array([row[3] for row in rows]),
        decisions=[row[4] for row in rows],
        maker=maker,
        degradations=tuple(degradations),
        answered_us=answered_us,
        with_vector=with_vector,
    )
    expected = [
        Prediction(
            prediction_id=row[0],
            event_id=row[1],
            event_time_us=row[2],
            role=role,
            score=row[3],
            decision=row[4],
            model_version="000007",
            route=route,
            route_epoch=9,
            untrained=untrained,
            degradations=degradations,
            features_fingerprint=PIPELINE.features_fingerprint,
            features=row[5],
            entities=row[6],
            event_positions=row[7],
            outcome_positions=row[8],
            features_time_us=row[9],
            model_time_us=model_time_us,
            answered_time_us=answered_us,
            channel=CHANNEL_KAFKA,
            source=source,
            ingested=True,
            received_time_us=row[9],
            overridden=row[11],
        )
        for row, source in zip(rows, sources, strict=True)
    ]
    if not with_vector:
        for one in expected:
            for name in ("features_fingerprint", "features", "entities", "event_positions", "outcome_positions"):
                one.ClearField(name)
    # An empty id is not encoded by the message; ids are never empty, which the texts here may be.
    assert [Prediction.FromString(one) for one in encoded] == expected
    for content, message in zip(encoded, expected, strict=True):
        if message.prediction_id and message.event_id:
            assert content == message.SerializeToString()
