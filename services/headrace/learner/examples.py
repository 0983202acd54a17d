"""What is learned of an outcome."""

from __future__ import annotations

from collections.abc import Sequence
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

    `label` is a bool, or the number where labels are numbers. `ignored` is empty, or says why the outcome is not
    learned. Corrections are among these, unless they are to be reversed: a gradient step that was taken cannot be taken
    back exactly, and learning the second label beside the first would count the event twice. Of one that is reversed,
    `replaced` is the label that it takes back.
    """

    label_time_us: int
    event_id: str
    partition: int
    offset: int
    append_time_us: int
    label: float
    row: list[float]
    ignored: str
    replaced: float | None = None


CORRECTION = "correction"
OTHER_FEATURES = "other_features"
NOT_FINITE = "not_finite"

# Parsed messages of this many records fit the cache: 2.6 µs a record instead of 4.5 at 10,000.
CHUNK = 250


def decode(
    records: Sequence[OutcomeRecord],
    features_fingerprint: int,
    width: int,
    *,
    absence: bool = False,
    numeric: bool = False,
    reverse: bool = False,
) -> list[Example]:
    """Read outcomes. Features become the float32 numbers that the served model is given.

    Args:
        records: committed records of `outcomes`.
        features_fingerprint: of the pipeline; outcomes of other features are marked as ignored.
        width: number of features.
        absence: whether the model takes rows in which a feature is absent (NaN).
        numeric: whether labels are numbers.
        reverse: whether a correction takes back the label that it replaces; without this it is ignored.

    Returns:
        One example a record, in the same order.

    Raises:
        LearnerError: a record is no outcome; names its position. The topic is written by Headrace alone, so this is
            never a producer's mistake.
    """
    examples: list[Example] = []
    for start in range(0, len(records), CHUNK):
        chunk = records[start : start + CHUNK]
        examples += _decode_chunk(chunk, features_fingerprint, width, absence, numeric, reverse)
    return examples


def _decode_chunk(
    records: Sequence[OutcomeRecord],
    features_fingerprint: int,
    width: int,
    absence: bool,
    numeric: bool,
    reverse: bool,
) -> list[Example]:
    outcomes, given = [], []
    for record in records:
        try:
            outcome = Outcome.FromString(record.value)
        except DecodeError as error:
            raise LearnerError(f"outcomes/{record.partition}@{record.offset} is not an Outcome: {error}") from error
        prediction = outcome.prediction
        # A slice of the field makes a list in one step.
        row = prediction.features[:]
        fits = prediction.features_fingerprint == features_fingerprint and len(row) == width
        outcomes.append((record, outcome, fits))
        if fits:
            given.append(row)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and that is looked at below
        cast = np.array(given, np.float64).reshape(-1, width).astype(np.float32)
    fine = np.isfinite(cast) | np.isnan(cast) if absence else np.isfinite(cast)
    finite = iter(np.asarray(fine.all(axis=1), np.bool_).tolist())
    rows = iter(cast.tolist())
    examples = []
    for record, outcome, fits in outcomes:
        label, ignored = outcome.label, OTHER_FEATURES
        row, value, replaced = [], label.value, None
        if fits:
            row = next(rows)
            ignored = "" if next(finite) else NOT_FINITE
            if outcome.kind == OUTCOME_KIND_CORRECTED:
                if reverse:
                    replaced = outcome.previous_label if numeric else outcome.previous_label > 0.5
                else:
                    ignored = CORRECTION
        examples.append(
            Example(
                label.label_time_us,
                label.event_id or outcome.prediction.event_id,
                record.partition,
                record.offset,
                record.append_time_us,
                value if numeric else value > 0.5,
                row,
                ignored,
                replaced,
            )
        )
    return examples
