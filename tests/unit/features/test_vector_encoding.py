from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.features.vector_encoding import StatePositions, VectorEncoder
from headrace.pipeline.events import EventColumns
from headrace.platform.pipelines import load_pipeline
from headrace.v1.event_pb2 import SourcePosition
from headrace.v1.vector_pb2 import FeatureVector

pipeline = load_pipeline("pipelines/fraud.py")
WIDTH = len(pipeline.feature_names)
Text = st.text(max_size=70)
Int64 = st.integers(-(2**63), 2**63 - 1)
Row = st.tuples(
    Text.filter(bool),
    Int64,
    st.tuples(Text, Text),
    st.integers(0, 2**62),
    Int64,
    st.lists(st.floats(allow_nan=False), min_size=WIDTH, max_size=WIDTH),
    st.booleans(),
)
Positions = st.lists(st.integers(-1, 2**62), max_size=5)


@given(
    rows=st.lists(Row, max_size=6), partition=st.integers(0, 300), events=Positions, outcomes=Positions, newest=Int64
)
def test_the_bytes_are_those_of_the_message(
    rows: list[tuple[str, int, tuple[str, str], int, int, list[float], bool]],
    partition: int,
    events: list[int],
    outcomes: list[int],
    newest: int,
) -> None:
    columns = EventColumns(
        [row[0] for row in rows],
        np.array([row[1] for row in rows], np.int64),
        {"customer_id": [row[2][0] for row in rows], "terminal_id": [row[2][1] for row in rows]},
        {},
    )
    found = VectorEncoder(pipeline, "fraud.events").encode(
        partition,
        columns,
        np.array([row[3] for row in rows], np.int64),
        np.array([row[4] for row in rows], np.int64),
        np.array([row[5] for row in rows], np.float64).reshape(len(rows), WIDTH),
        StatePositions(events, outcomes, newest),
        [row[6] for row in rows],
    )
    expected = [
        FeatureVector(
            event_id=event_id,
            event_time_us=time,
            features_fingerprint=pipeline.features_fingerprint,
            values=values,
            entities=entities,
            source=SourcePosition(topic="fraud.events", partition=partition, offset=offset),
            event_positions=events,
            outcome_positions=outcomes,
            features_time_us=newest,
            produced_time_us=produced,
            late=late,
        ).SerializeToString()
        for event_id, time, entities, offset, produced, values, late in rows
    ]
    assert found == expected
