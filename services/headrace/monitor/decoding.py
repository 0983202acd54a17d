"""Kafka records of `predictions` and `outcomes` to columns."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from headrace.statistics.drift import FloatArray, IntArray
from headrace.statistics.seasons import HashArray
from headrace.v1.prediction_pb2 import (
    OUTCOME_KIND_CORRECTED,
    OUTCOME_KIND_EXPIRED,
    OUTCOME_KIND_LABELLED,
    ROLE_ANSWER,
    ROLE_REPEAT,
    ROLE_SHADOW,
    Outcome,
    Prediction,
)

ROLES = {ROLE_ANSWER: "answer", ROLE_SHADOW: "shadow", ROLE_REPEAT: "repeat"}
KINDS = {OUTCOME_KIND_LABELLED: "labelled", OUTCOME_KIND_CORRECTED: "corrected", OUTCOME_KIND_EXPIRED: "expired"}


@dataclass(frozen=True, eq=False)
class PredictionColumns:
    """Answers, one a row, in the order of the log.

    Attributes:
        ids: hashes of the event ids, uint64 (n,).
        times: event times in microseconds since 1970-01-01 UTC, int64 (n,).
        features: float64 (n, k).
        score: float64 (n,).
        trained: whether the version had learned something, bool (n,).
        roles: records by role, those left out included.
        left_out: records that are of no use, by reason.
        answered_us: when the newest was answered, microseconds since 1970-01-01 UTC; 0 without rows.
    """

    ids: HashArray
    times: IntArray
    features: FloatArray
    score: FloatArray
    trained: NDArray[np.bool_]
    roles: Counter[str]
    left_out: Counter[str]
    answered_us: int


@dataclass(frozen=True, eq=False)
class OutcomeColumns:
    """Labelled answers, one a row, in the order of the log.

    Attributes:
        ids, times, score, trained: as in `PredictionColumns`.
        positive: the label, bool (n,).
        kinds: records by kind.
        left_out: records that are of no use, by reason.
    """

    ids: HashArray
    times: IntArray
    score: FloatArray
    trained: NDArray[np.bool_]
    positive: NDArray[np.bool_]
    kinds: Counter[str]
    left_out: Counter[str]


def decode_predictions(values: Iterable[bytes | None], fingerprint: int, features: int) -> PredictionColumns:
    """Decode records of `predictions`.

    Only answers become rows. Left out are what cannot be decoded, features of another definition, and a vector of the
    wrong length.

    Parameters
    ----------
    values
        Values of the records.
    fingerprint
        `features_fingerprint` of the pipeline.
    features
        How many it has.
    """
    ids: list[bytes] = []
    times, packed, score, trained = array("q"), array("d"), array("d"), array("b")
    roles: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    answered_us = 0
    for value in values:
        try:
            prediction = Prediction.FromString(value or b"")
        except DecodeError:
            left_out["undecodable"] += 1
            continue
        role = prediction.role
        roles[ROLES.get(role, "unknown")] += 1
        if role != ROLE_ANSWER:
            continue
        if prediction.features_fingerprint != fingerprint:
            left_out["other_definition"] += 1
            continue
        if len(prediction.features) != features:
            left_out["wrong_length"] += 1
            continue
        ids.append(_hash(prediction.event_id))
        times.append(prediction.event_time_us)
        packed.extend(prediction.features)
        score.append(prediction.score)
        trained.append(not prediction.untrained)
        answered_us = max(answered_us, prediction.answered_time_us)
    return PredictionColumns(
        _hashes(ids),
        np.array(times, dtype=np.int64),
        np.array(packed, dtype=np.float64).reshape(-1, features),
        np.array(score, dtype=np.float64),
        np.array(trained, dtype=np.bool_),
        roles,
        left_out,
        answered_us,
    )


def decode_outcomes(values: Iterable[bytes | None]) -> OutcomeColumns:
    """Decode records of `outcomes`. Left out is what cannot be decoded, and a score that is not finite."""
    ids: list[bytes] = []
    times, score, trained, positive = array("q"), array("d"), array("b"), array("b")
    kinds: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for value in values:
        try:
            outcome = Outcome.FromString(value or b"")
        except DecodeError:
            left_out["undecodable"] += 1
            continue
        kinds[KINDS.get(outcome.kind, "unknown")] += 1
        prediction = outcome.prediction
        if not np.isfinite(prediction.score):
            left_out["score_not_finite"] += 1
            continue
        ids.append(_hash(prediction.event_id))
        times.append(prediction.event_time_us)
        score.append(prediction.score)
        trained.append(not prediction.untrained)
        positive.append(outcome.label.value >= 0.5)
    return OutcomeColumns(
        _hashes(ids),
        np.array(times, dtype=np.int64),
        np.array(score, dtype=np.float64),
        np.array(trained, dtype=np.bool_),
        np.array(positive, dtype=np.bool_),
        kinds,
        left_out,
    )


def _hash(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode(), digest_size=8).digest()


def _hashes(digests: list[bytes]) -> HashArray:
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
