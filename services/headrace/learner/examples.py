"""What is learned of an outcome."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from headrace.learner.errors import LearnerError
from headrace.v1.prediction_pb2 import OUTCOME_KIND_CORRECTED, Outcome


class OutcomeRecord(NamedTuple):
    """A record of `outcomes`, as it lies in Kafka."""

    partition: int
    offset: int
    append_time_us: int
    value: bytes


class Example(NamedTuple):
    """One outcome as the learner takes it.

    `ignored` is empty, or says why the outcome is not learned. Corrections are among these: a gradient step that was
    taken cannot be taken back exactly, and learning the second label beside the first would count the event twice.
    """

    label_time_us: int
    event_id: str
    partition: int
    offset: int
    append_time_us: int
    label: bool
    row: list[float]
    ignored: str


CORRECTION = "correction"
OTHER_FEATURES = "other_features"
NOT_FINITE = "not_finite"


def decode(records: Iterable[OutcomeRecord], features_fingerprint: int, width: int) -> list[Example]:
    """Read outcomes. Features become the float32 numbers that the served model is given.

    Args:
        records: committed records of `outcomes`.
        features_fingerprint: of the pipeline; outcomes of other features are marked as ignored.
        width: number of features.

    Returns:
        One example a record, in the same order.

    Raises:
        LearnerError: a record is no outcome; names its position. The topic is written by Headrace alone, so this is
            never a producer's mistake.
    """
    examples = []
    for record in records:
        try:
            outcome = Outcome.FromString(record.value)
        except DecodeError as error:
            raise LearnerError(f"outcomes/{record.partition}@{record.offset} is not an Outcome: {error}") from error
        prediction, label = outcome.prediction, outcome.label
        row: list[float] = []
        if prediction.features_fingerprint != features_fingerprint or len(prediction.features) != width:
            ignored = OTHER_FEATURES
        else:
            ignored = CORRECTION if outcome.kind == OUTCOME_KIND_CORRECTED else ""
            row = np.array(prediction.features, np.float32).tolist()
            if not math.isfinite(sum(row)) and not all(map(math.isfinite, row)):
                ignored = NOT_FINITE
        examples.append(
            Example(
                label.label_time_us,
                label.event_id or prediction.event_id,
                record.partition,
                record.offset,
                record.append_time_us,
                label.value > 0.5,
                row,
                ignored,
            )
        )
    return examples
