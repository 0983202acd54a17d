"""What is learned, in which order, and what a snapshot holds."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from river import linear_model, optim, preprocessing

from headrace.learner import snapshot
from headrace.learner.errors import LearnerError, RecipeChangedError, SnapshotError
from headrace.learner.examples import Example, OutcomeRecord, decode
from headrace.learner.learning import Learning
from headrace.learner.recipes import recognise
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import OUTCOME_KIND_CORRECTED, OUTCOME_KIND_LABELLED, Outcome, Prediction

NAMES = ("a", "b")
FINGERPRINT = 2**63 + 5


def build(rate: float = 0.05) -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(rate))


def learning() -> Learning:
    return Learning(recognise(build()), NAMES, FINGERPRINT, (0, 10))


def example(partition: int, offset: int, label_time: int, event_id: str, ignored: str = "") -> Example:
    value = random.Random(event_id).random()
    return Example(label_time, event_id, partition, offset, offset * 1000, value > 0.5, [value, 1 - value], ignored)


def some(count: int) -> list[Example]:
    return [
        example(index % 2, 10 + index // 2, label_time=100 - index // 3, event_id=f"e{index}") for index in range(count)
    ]


def test_order_is_label_time_then_event_id() -> None:
    arrived = [example(0, 3, 50, "b"), example(1, 12, 50, "a"), example(0, 4, 40, "z"), example(1, 13, 60, "a0")]
    learned = learning()
    learned.learn(arrived)
    log = learned.order("000001", "000000", None)
    assert list(zip(log.partitions.tolist(), log.offsets.tolist(), strict=True)) == [(0, 4), (1, 12), (0, 3), (1, 13)]
    progress = learned.progress()
    assert progress.first_offsets == (0, 10)
    assert progress.next_offsets == (5, 14)
    assert (progress.last_label_time_us, progress.last_event_id, progress.model_time_us) == (60, "a0", 60)
    assert progress.append_time_us == 13_000


def test_arrival_within_a_gather_does_not_matter() -> None:
    first, second = learning(), learning()
    arrived = some(40)
    first.learn(arrived)
    second.learn(random.Random(4).sample(arrived, len(arrived)))
    assert snapshot.encode(first.snapshot("1", "0")) == snapshot.encode(second.snapshot("1", "0"))


def test_what_is_ignored_is_counted_and_passed() -> None:
    learned = learning()
    learned.learn([example(0, 7, 5, "e", ignored="correction")])
    assert learned.learned_count == 0
    assert learned.learned_since_version == 0
    assert learned.next_offsets == (8, 10)
    assert learned.progress().ignored == (("correction", 1),)


def test_advance_never_goes_back() -> None:
    learned = learning()
    learned.advance((5, 3))
    assert learned.next_offsets == (5, 10)


def test_restored_learning_goes_on_to_the_bit() -> None:
    arrived = some(60)
    whole, first = learning(), learning()
    for part in (arrived[:25], arrived[25:]):
        whole.learn(part)
    first.learn(arrived[:25])
    first.next_command = 3
    whole.next_command = 3
    stored = snapshot.decode(snapshot.encode(first.snapshot("000001", "000000")))
    second = Learning.restore(recognise(build()), stored, FINGERPRINT)
    assert second.learned_since_version == 0
    assert second.next_offsets == first.next_offsets != (0, 10)
    second.learn(arrived[25:])
    assert snapshot.encode(second.snapshot("2", "1")) == snapshot.encode(whole.snapshot("2", "1"))
    assert second.order("2", "1", None).offsets.tolist() == whole.order("2", "1", None).offsets.tolist()[25:]


def test_another_recipe_or_other_features_are_refused() -> None:
    stored = learning().snapshot("000001", "000000")
    with pytest.raises(RecipeChangedError, match="000001 was made by recipe"):
        Learning.restore(recognise(build(0.06)), stored, FINGERPRINT)
    with pytest.raises(RecipeChangedError, match="000001 takes features"):
        Learning.restore(recognise(build()), stored, FINGERPRINT + 1)


def test_a_damaged_snapshot_is_refused() -> None:
    whole = snapshot.encode(learning().snapshot("000001", ""))
    for content in (whole[:-1], b"{}", b"[]", whole.replace(b'"format":1', b'"format":9')):
        with pytest.raises(SnapshotError):
            snapshot.decode(content)
    torn = dataclasses.replace(learning().progress(), next_offsets=(1,))
    stored = dataclasses.replace(learning().snapshot("1", "0"), progress=torn)
    with pytest.raises(SnapshotError, match="different number of partitions"):
        Learning.restore(recognise(build()), stored, FINGERPRINT)


def outcome(**fields: Any) -> bytes:
    prediction = Prediction(event_id="e", features=[0.1, 2.0], features_fingerprint=FINGERPRINT)
    values: dict[str, Any] = {"kind": OUTCOME_KIND_LABELLED, "prediction": prediction} | fields
    return Outcome(label=Label(event_id="e", value=1.0, label_time_us=77), **values).SerializeToString()


def decoded(value: bytes) -> Example:
    (only,) = decode([OutcomeRecord(1, 5, 9_000, value)], FINGERPRINT, 2)
    return only


def test_features_are_cast_to_float32() -> None:
    found = decoded(outcome())
    assert found == Example(77, "e", 1, 5, 9_000, True, [0.10000000149011612, 2.0], "")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (outcome(kind=OUTCOME_KIND_CORRECTED), "correction"),
        (outcome(prediction=Prediction(features=[1.0, 2.0], features_fingerprint=1)), "other_features"),
        (outcome(prediction=Prediction(features=[1.0], features_fingerprint=FINGERPRINT)), "other_features"),
        (outcome(prediction=Prediction(features=[1.0, float("nan")], features_fingerprint=FINGERPRINT)), "not_finite"),
        (outcome(prediction=Prediction(features=[float("-inf"), 1], features_fingerprint=FINGERPRINT)), "not_finite"),
    ],
)
def test_what_is_not_learned(value: bytes, reason: str) -> None:
    assert decoded(value).ignored == reason


def test_each_row_stays_with_its_outcome() -> None:
    records = []
    for number in range(600):
        fingerprint = 1 if number % 7 == 3 else FINGERPRINT
        features = [float(number), float("inf") if number % 11 == 5 else 1e39 if number % 13 == 5 else 0.5]
        prediction = Prediction(event_id=f"e{number}", features=features, features_fingerprint=fingerprint)
        value = Outcome(prediction=prediction, label=Label(value=1), kind=OUTCOME_KIND_LABELLED).SerializeToString()
        records.append(OutcomeRecord(0, number, 0, value))
    for number, found in enumerate(decode(records, FINGERPRINT, 2)):
        assert (found.offset, found.event_id) == (number, f"e{number}")
        if number % 7 == 3:
            assert (found.ignored, found.row) == ("other_features", [])
        else:
            assert found.row[0] == number
            assert found.ignored == ("not_finite" if number % 11 == 5 or number % 13 == 5 else "")


def test_a_record_that_is_no_outcome_ends_the_learner_with_its_place() -> None:
    with pytest.raises(LearnerError, match="outcomes/1@5 is not an Outcome"):
        decoded(b"\xff\xff")
