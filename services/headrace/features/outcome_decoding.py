"""Records of `outcomes` into outcomes, or into rejected records with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.features.decoding import SERVICE, Record
from headrace.pipeline import EventError, Pipeline
from headrace.platform.event_codec import is_json, parse
from headrace.platform.rejected_records import reject
from headrace.v1.event_pb2 import Rejected
from headrace.v1.prediction_pb2 import Outcome

ReadOutcome = tuple[int, int, Outcome]
"""Offset, Kafka timestamp in microseconds, content."""


def decode_outcomes(pipeline: Pipeline, records: Sequence[Record]) -> tuple[list[ReadOutcome], list[Rejected]]:
    """Decode the records of one partition, and set aside what cannot be merged.

    Args:
        pipeline: gives the number of entities.
        records: in offset order.
    """
    read: list[ReadOutcome] = []
    rejected: list[Rejected] = []
    for record in records:
        try:
            outcome = parse(record.value, is_json(record.headers), Outcome())
            _check(pipeline, outcome)
        except EventError as error:
            rejected.append(reject(record, error, SERVICE))
        else:
            read.append((record.offset, record.timestamp * 1000, outcome))
    return read, rejected


def _check(pipeline: Pipeline, outcome: Outcome) -> None:
    prediction = outcome.prediction
    if prediction.ingested and len(prediction.entities) != len(pipeline.entities):
        raise EventError(
            "wrong_shape",
            "prediction.entities",
            f"prediction.entities has {len(prediction.entities)} ids; this pipeline has {len(pipeline.entities)} "
            "entities",
        )
