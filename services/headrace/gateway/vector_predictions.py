"""Predictions of the Kafka path: made from a vector, recorded without it. Pure."""

from __future__ import annotations

from headrace.v1.prediction_pb2 import CHANNEL_KAFKA, Prediction
from headrace.v1.vector_pb2 import FeatureVector


def fill(prediction: Prediction, vector: FeatureVector) -> Prediction:
    """Complete a prediction with what its vector says; its id follows from the place of the event."""
    prediction.prediction_id = f"k-{vector.source.partition}-{vector.source.offset}"
    prediction.event_id = vector.event_id
    prediction.event_time_us = vector.event_time_us
    prediction.features_fingerprint = vector.features_fingerprint
    prediction.features.extend(vector.values)
    prediction.entities.extend(vector.entities)
    prediction.event_positions.extend(vector.event_positions)
    prediction.outcome_positions.extend(vector.outcome_positions)
    prediction.features_time_us = vector.features_time_us
    prediction.channel = CHANNEL_KAFKA
    prediction.source.CopyFrom(vector.source)
    prediction.ingested = True
    prediction.received_time_us = vector.produced_time_us
    return prediction


def without_vector(prediction: Prediction) -> Prediction:
    """A copy without what comes with the vector, which is most of its size."""
    stripped = Prediction()
    stripped.CopyFrom(prediction)
    stripped.ClearField("features")
    stripped.ClearField("features_fingerprint")
    stripped.ClearField("entities")
    stripped.ClearField("event_positions")
    stripped.ClearField("outcome_positions")
    return stripped


def answered_again(first: Prediction, prediction: Prediction) -> Prediction:
    """The answer that was recorded, with the vector again."""
    answer = without_vector(first)
    answer.features_fingerprint = prediction.features_fingerprint
    answer.features.extend(prediction.features)
    answer.entities.extend(prediction.entities)
    answer.event_positions.extend(prediction.event_positions)
    answer.outcome_positions.extend(prediction.outcome_positions)
    return answer
