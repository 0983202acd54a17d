"""Predictions and outcomes of the watched pipeline, as gateway and join would log them."""

from __future__ import annotations

import numpy as np

from headrace.pipeline import DAY
from headrace.v1.prediction_pb2 import OUTCOME_KIND_LABELLED, ROLE_ANSWER, Outcome, Prediction

BEGIN_US = 20_000 * DAY
ROWS_PER_DAY = 600


def predictions(day: int, fingerprint: int, *, shift: float = 0.0) -> list[Prediction]:
    """The answers of one day, in order of event time.

    Parameters
    ----------
    day
        Number of the day, from 0; it also seeds the random numbers.
    fingerprint
        `features_fingerprint` of the pipeline.
    shift
        Added to the amount, whose standard deviation is 1.
    """
    random = np.random.default_rng(day)
    amounts = random.normal(shift, 1, ROWS_PER_DAY)
    counts = random.poisson(min(4, 2 * day + 2), ROWS_PER_DAY)
    scores = random.beta(2, 8, ROWS_PER_DAY)
    return [
        Prediction(
            prediction_id=f"k-0-{day}-{row}",
            event_id=f"event-{day}-{row}",
            event_time_us=BEGIN_US + day * DAY + row * (DAY // ROWS_PER_DAY),
            role=ROLE_ANSWER,
            score=scores[row],
            model_version="1",
            features_fingerprint=fingerprint,
            features=[amounts[row], counts[row]],
            answered_time_us=BEGIN_US + day * DAY,
        )
        for row in range(ROWS_PER_DAY)
    ]


def outcomes(answers: list[Prediction], *, blind: bool = False) -> list[Outcome]:
    """Labels that the scores foretell, or labels that they know nothing of where `blind`."""
    random = np.random.default_rng(len(answers))
    found = []
    for answer in answers:
        outcome = Outcome(prediction=answer, kind=OUTCOME_KIND_LABELLED)
        outcome.label.event_id = answer.event_id
        outcome.label.value = float(random.random() < (0.2 if blind else answer.score))
        outcome.label.label_time_us = answer.event_time_us + DAY
        found.append(outcome)
    return found
