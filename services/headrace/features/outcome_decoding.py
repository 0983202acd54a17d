"""Records of `outcomes` into outcomes, or into rejected records with the reason."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headrace.features.decoding import SERVICE, Record
from headrace.pipeline import EventError, Pipeline
from headrace.pipeline.schema import LATEST_TIME_US, check_identity
from headrace.platform.event_codec import is_json, parse
from headrace.platform.rejected_records import reject
from headrace.v1.event_pb2 import Rejected
from headrace.v1.prediction_pb2 import OUTCOME_KIND_EXPIRED, Outcome

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
    prediction, label = outcome.prediction, outcome.label
    if not prediction.ingested:  # nothing of it is merged
        return
    if len(prediction.entities) != len(pipeline.entities):
        raise EventError(
            "wrong_shape",
            "prediction.entities",
            f"prediction.entities has {len(prediction.entities)} ids; this pipeline has {len(pipeline.entities)} "
            "entities",
        )
    check_identity(prediction.event_id, prediction.event_time_us)
    for entity, entity_id in zip(pipeline.entities, prediction.entities, strict=True):
        if not entity_id:
            raise EventError("missing_field", "prediction.entities", f"the id of the {entity.name} is missing")
    if outcome.kind == OUTCOME_KIND_EXPIRED:  # it has no label
        return
    if not 0 < label.label_time_us < LATEST_TIME_US:
        raise EventError(
            "out_of_range" if label.label_time_us else "missing_field",
            "label.label_time_us",
            f"label.label_time_us is {label.label_time_us}; allowed are the years 1970 to 2200 in microseconds",
        )
    for name, value in (("label.value", label.value), ("previous_label", outcome.previous_label)):
        if not math.isfinite(value):
            raise EventError("out_of_range", name, f"{name} is {value:g}; it must be finite")
