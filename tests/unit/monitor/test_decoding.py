from __future__ import annotations

import math

from headrace.monitor.decoding import decode_outcomes, decode_predictions
from headrace.v1.prediction_pb2 import (
    OUTCOME_KIND_CORRECTED,
    OUTCOME_KIND_LABELLED,
    ROLE_ANSWER,
    ROLE_REPEAT,
    ROLE_SHADOW,
    Outcome,
    Prediction,
)

FINGERPRINT = 77


def prediction(event_id: str = "e", **fields: object) -> Prediction:
    given = {
        "role": ROLE_ANSWER,
        "features_fingerprint": FINGERPRINT,
        "features": [1.0, math.nan],
        "score": 0.25,
        "event_time_us": 5,
        "answered_time_us": 9,
    }
    return Prediction(event_id=event_id, **(given | fields))  # type: ignore[arg-type]


def test_answers_become_rows() -> None:
    records = [prediction("a"), prediction("b", event_time_us=6, untrained=True, answered_time_us=8)]
    found = decode_predictions([record.SerializeToString() for record in records], FINGERPRINT, 2)
    assert found.times.tolist() == [5, 6]
    assert found.score.tolist() == [0.25, 0.25]
    assert found.trained.tolist() == [True, False]
    assert found.features[:, 0].tolist() == [1, 1]
    assert math.isnan(found.features[0, 1])
    assert found.ids[0] != found.ids[1]
    assert found.answered_us == 9
    assert found.roles == {"answer": 2}


def test_what_is_of_no_use_is_left_out_and_counted() -> None:
    records = [
        prediction(role=ROLE_SHADOW),
        prediction(role=ROLE_REPEAT),
        prediction(features_fingerprint=1),
        prediction(features=[1.0]),
        prediction("kept"),
    ]
    found = decode_predictions([b"\xff", None, *(record.SerializeToString() for record in records)], FINGERPRINT, 2)
    assert len(found.times) == 1
    assert found.roles == {"unknown": 1, "answer": 3, "shadow": 1, "repeat": 1}
    assert found.left_out == {"undecodable": 1, "other_definition": 1, "wrong_length": 1}


def test_no_records_are_no_rows() -> None:
    assert decode_predictions([], FINGERPRINT, 2).features.shape == (0, 2)
    assert decode_outcomes([]).ids.shape == (0,)


def test_outcomes_become_rows_under_the_hash_of_their_prediction() -> None:
    first, corrected, broken = Outcome(kind=OUTCOME_KIND_LABELLED), Outcome(kind=OUTCOME_KIND_CORRECTED), Outcome()
    for outcome, value in ((first, 1.0), (corrected, 0.0)):
        outcome.prediction.CopyFrom(prediction("a"))
        outcome.label.value = value
    broken.prediction.CopyFrom(prediction("b", score=math.nan))
    found = decode_outcomes([outcome.SerializeToString() for outcome in (first, corrected, broken)] + [b"\xff"])
    assert found.positive.tolist() == [True, False]
    assert found.ids[0] == found.ids[1]
    assert found.ids[0] == decode_predictions([prediction("a").SerializeToString()], FINGERPRINT, 2).ids[0]
    assert found.kinds == {"labelled": 1, "corrected": 1, "unknown": 1}
    assert found.left_out == {"score_not_finite": 1, "undecodable": 1}
