"""What was served is written so that it can be compared later."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headrace.demo.payments import load_source
from headrace.demo.recording import Place, Recording
from headrace.demo.served_file import write_served
from headrace.offline.parquet_file import ParquetFile
from headrace.offline.served_vectors import read_file
from headrace.platform.pipelines import load_pipeline
from headrace.v1.prediction_pb2 import ROLE_ANSWER, Prediction

pipeline = load_pipeline("pipelines/fraud.py")


def test_the_first_answers_are_written_with_their_positions(tmp_path: Path) -> None:
    payments = load_source(None, 20, 3)
    recording = Recording(payments.history(), pipeline)
    width = len(pipeline.feature_names)
    for row in (11, 4):
        served = Prediction(
            prediction_id=f"p{row}",
            event_id=payments.transaction_id[row],
            role=ROLE_ANSWER,
            features=[row + column / 100 for column in range(width)],
            event_positions=[row, -1],
        )
        recording.file_prediction(served.SerializeToString(), Place(0, row, 1))
    path = write_served(recording, pipeline, tmp_path)
    read = read_file(ParquetFile(path), pipeline)
    assert read.ids == [payments.transaction_id[row] for row in (4, 11)]
    np.testing.assert_array_equal(read.values[1], 11 + np.arange(width) / 100)
    assert read.positions.events is not None
    assert read.positions.outcomes is not None
    assert read.positions.events.tolist() == [[4, -1, -1, -1], [11, -1, -1, -1]]
    assert read.positions.outcomes.tolist() == [[-1] * 4] * 2
    assert [one.name for one in tmp_path.iterdir()] == ["served.parquet"]


def test_a_replay_without_answers_has_an_empty_file(tmp_path: Path) -> None:
    recording = Recording(load_source(None, 20, 3).history(), pipeline)
    assert read_file(ParquetFile(write_served(recording, pipeline, tmp_path)), pipeline).ids == []
