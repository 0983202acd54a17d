"""Scores of rows just before they are learned: by the learner's own code in one process, and by River's own loop."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headrace.learner.examples import OutcomeRecord, decode
from headrace.learner.recipes import declared
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import OUTCOME_KIND_LABELLED, Outcome, Prediction
from loadtests.learning.river_rows.data import Dataset
from loadtests.learning.river_rows.declaration import recipe
from loadtests.learning.river_rows.models import MODELS

FINGERPRINT = 7
GATHER = 500


def unanswered(model: str, dataset: Dataset) -> int:
    """How many first rows the model has no answer for: it answers as soon as it has learned one."""
    x = dict(zip(dataset.declared.features, dataset.rows[0].tolist(), strict=True))
    return int(MODELS[model]().predict_one(x) is None)


def learner_scores(model: str, dataset: Dataset) -> NDArray[np.float64]:
    """Prequential scores of the learner, float64 (n,): from packed outcomes, with features as float32.

    Raises:
        UnsupportedRecipeError: names what cannot be served of the model.
    """
    names = dataset.declared.features
    built = declared(recipe(model, dataset.declared), names)
    records = [
        OutcomeRecord(
            0,
            number,
            number,
            Outcome(
                kind=OUTCOME_KIND_LABELLED,
                prediction=Prediction(event_id=f"{number:08d}", features=row, features_fingerprint=FINGERPRINT),
                label=Label(event_id=f"{number:08d}", value=float(label), label_time_us=number),
            ).SerializeToString(),
        )
        for number, (row, label) in enumerate(zip(dataset.features.tolist(), dataset.labels.tolist(), strict=True))
    ]
    scores = []
    for start in range(0, len(records), GATHER):
        examples = decode(records[start : start + GATHER], FINGERPRINT, len(names), absence=built.knows_absence)
        ids = [one.event_id for one in examples]
        rows = [one.row for one in examples]
        scores.append(built.learn(rows, [bool(one.label) for one in examples], names, ids))
    return np.concatenate(scores)


def river_scores(model: str, dataset: Dataset, *, single: bool) -> NDArray[np.float64]:
    """The same of River's own loop, over the values as River reads them.

    Args:
        model: of the page.
        dataset: the rows.
        single: whether the values are float32 numbers.
    """
    built = MODELS[model]()
    rows = dataset.rows.astype(np.float32).astype(np.float64) if single else dataset.rows
    scores = np.empty(len(rows))
    for number, (row, label) in enumerate(zip(rows.tolist(), dataset.labels.tolist(), strict=True)):
        x = dict(zip(dataset.declared.features, row, strict=True))
        scores[number] = built.predict_proba_one(x).get(True, 0.0)
        built.learn_one(x, label)
    return scores
