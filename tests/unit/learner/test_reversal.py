"""Corrections: ignored, or taken back and learned anew by models that can."""

from __future__ import annotations

import random
from typing import Any

import pytest
from river import linear_model, naive_bayes, preprocessing, tree

from headrace.learner.cohort import Cohort, Member
from headrace.learner.errors import UnsupportedRecipeError
from headrace.learner.examples import OutcomeRecord, decode
from headrace.learner.learning import Learning
from headrace.learner.recipes import declared
from headrace.pipeline import Model
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import OUTCOME_KIND_CORRECTED, OUTCOME_KIND_LABELLED, Outcome, Prediction

NAMES = ("a", "b")
FINGERPRINT = 3
EVENTS = 300


def outcome(offset: int, event: int, row: list[float], value: float, previous: float | None = None) -> OutcomeRecord:
    kind = OUTCOME_KIND_LABELLED if previous is None else OUTCOME_KIND_CORRECTED
    message = Outcome(
        kind=kind,
        previous_label=previous,
        prediction=Prediction(event_id=f"{event:04d}", features=row, features_fingerprint=FINGERPRINT),
        label=Label(event_id=f"{event:04d}", value=value, label_time_us=1 + offset),
    )
    return OutcomeRecord(0, offset, offset, message.SerializeToString())


def histories() -> tuple[list[OutcomeRecord], list[OutcomeRecord]]:
    """Outcomes of which a third is corrected later, some of these twice; and the same with the last labels alone."""
    chance = random.Random(3)
    events = [(chance.gauss(10, 3), chance.gauss(-5, 1), float(chance.random() < 0.3)) for _ in range(EVENTS)]
    corrected: list[OutcomeRecord] = []
    labels = [value for _, _, value in events]
    for event, (a, b, value) in enumerate(events):
        corrected.append(outcome(len(corrected), event, [a, b], value))
        while event > 20 and chance.random() < 0.25:
            other = chance.randrange(event)
            before, labels[other] = labels[other], 1 - labels[other]
            corrected.append(outcome(len(corrected), other, list(events[other][:2]), labels[other], before))
    right = [outcome(event, event, [a, b], labels[event]) for event, (a, b, _) in enumerate(events)]
    return corrected, right


def learned(records: list[OutcomeRecord], first: int = 0, corrections: Any = "reverse") -> Learning:
    recipe = declared(Model("bayes", naive_bayes.GaussianNB, corrections=corrections), NAMES)
    learning = Learning(recipe, NAMES, FINGERPRINT, (first,))
    cohort = Cohort([Member("bayes", learning, challenger=False)])
    for start in range(0, len(records), 37):
        cohort.learn(records[start : start + 37])
    return learning


def test_reversed_corrections_give_the_model_that_had_known_better() -> None:
    corrected, right = histories()
    assert len(corrected) > EVENTS + 60
    found, expected, ignoring = learned(corrected), learned(right), learned(corrected, corrections="ignore")
    assert found.recipe.model.class_counts == expected.recipe.model.class_counts
    assert ignoring.recipe.model.class_counts != expected.recipe.model.class_counts
    rows = [[chance.gauss(10, 4), chance.gauss(-5, 2)] for chance in map(random.Random, range(200))]
    scores = expected.recipe.score(rows, NAMES).tolist()
    assert found.recipe.score(rows, NAMES).tolist() == pytest.approx(scores, abs=1e-9)
    assert ignoring.recipe.score(rows, NAMES).tolist() != pytest.approx(scores, abs=1e-3)


def test_corrections_are_in_the_order_and_not_in_the_metrics() -> None:
    corrected, _ = histories()
    found = learned(corrected)
    assert found.learned_count == len(corrected)
    assert len(found.order("000001", "000000", None).offsets) == len(corrected)
    assert found.metrics.state()["count"] == EVENTS
    assert found.ignored == {}
    assert learned(corrected, corrections="ignore").ignored == {"correction": len(corrected) - EVENTS}


def test_a_correction_of_what_may_never_have_been_learned_is_ignored() -> None:
    corrected, _ = histories()
    found = learned(corrected[40:], first=40)
    assert found.ignored["correction"] > 0
    assert found.learned_count + found.ignored["correction"] == len(corrected) - 40


def test_what_is_taken_back_leaves_nothing() -> None:
    once = [outcome(0, 0, [1e6, 0.25], 1), outcome(1, 1, [0.1, 0.2], 0), outcome(2, 2, [0.3, 0.1], 0)]
    found = learned([*once, outcome(3, 0, [1e6, 0.25], 0, 1.0), outcome(4, 0, [1e6, 0.25], 1, 0.0)])
    model = found.recipe.model
    assert model.class_counts == {True: 1, False: 2}
    # To the digits that a million has left of a tenth.
    assert model.gaussians[False]["a"].mu == pytest.approx(0.2, abs=1e-7)
    assert all(gaussian._var._S == 0 for gaussian in model.gaussians[True].values())
    gone = learned([once[0], outcome(1, 0, [1e6, 0.25], 0, 1.0)]).recipe.model
    assert set(gone.class_counts) == set(gone.gaussians) == {False}


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (linear_model.LogisticRegression, "LogisticRegression"),
        (tree.HoeffdingTreeClassifier, "HoeffdingTreeClassifier"),
        (lambda: preprocessing.StandardScaler() | naive_bayes.GaussianNB(), r"StandardScaler \| GaussianNB"),
    ],
)
def test_models_that_cannot_are_refused_by_name(build: Any, name: str) -> None:
    with pytest.raises(UnsupportedRecipeError, match=f"corrections='reverse': {name} cannot take back"):
        declared(Model("m", build, corrections="reverse"), NAMES)


def test_the_policy_is_part_of_the_recipe() -> None:
    ignoring, reversing = (
        declared(Model("m", naive_bayes.GaussianNB, corrections=policy), NAMES) for policy in ("ignore", "reverse")
    )
    assert ignoring.fingerprint != reversing.fingerprint


def test_the_recorded_order_gives_the_same_bits_again() -> None:
    corrected, _ = histories()
    found = learned(corrected)
    at = found.order("000001", "000000", None).offsets.tolist()
    examples = decode([corrected[offset] for offset in at], FINGERPRINT, 2, reverse=True)
    again = declared(Model("bayes", naive_bayes.GaussianNB, corrections="reverse"), NAMES)
    for part in (examples[:111], examples[111:]):
        # Through a snapshot in between.
        fresh = declared(Model("bayes", naive_bayes.GaussianNB, corrections="reverse"), NAMES)
        fresh.restore(again.state())
        again = fresh
        again.learn(
            [one.row for one in part],
            [one.label for one in part],
            NAMES,
            [one.event_id for one in part],
            [one.replaced for one in part],
        )
    assert again.comparable(again.state()) == found.recipe.comparable(found.recipe.state())
