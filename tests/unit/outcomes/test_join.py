"""What each kind of prediction and label becomes, in the pure join."""

from __future__ import annotations

import pytest

from headrace.outcomes.answer_clock import AnswerClock
from headrace.outcomes.event_state import Answered, Closed, EventState, Shadow, UsedLabel, Waiting
from headrace.outcomes.expiry import ExpiryGate, PartitionTimes, expire
from headrace.outcomes.join import MAX_WAITING_LABELS, BatchJoin, JoinRules, LabelArrival, PredictionArrival
from headrace.outcomes.progress import Positions
from headrace.v1.event_pb2 import Label, SourcePosition
from headrace.v1.prediction_pb2 import (
    OUTCOME_KIND_CORRECTED,
    OUTCOME_KIND_EXPIRED,
    OUTCOME_KIND_LABELLED,
    ROLE_ANSWER,
    ROLE_REPEAT,
    ROLE_SHADOW,
    Outcome,
    Prediction,
    Role,
    ShadowScore,
)

HORIZON = 100
RULES = JoinRules(3, "d.predictions", "d.labels", HORIZON, 10, 20, "negative")
NOTHING = Positions(0, 0)


def answer(
    event_id: str, offset: int, time: int = 1000, role: Role.ValueType = ROLE_ANSWER, name: str = "p"
) -> PredictionArrival:
    value = Prediction(
        event_id=event_id, prediction_id=name, event_time_us=time, score=0.5, model_version="7", role=role
    )
    return PredictionArrival(event_id.encode(), offset, time, role, name, "7", 0.5, value.SerializeToString())


def labelled(event_id: str, offset: int, value: float = 1.0, time: int = 1050) -> LabelArrival:
    return LabelArrival(event_id.encode(), UsedLabel(value, time, offset))


def batch(
    states: dict[bytes, EventState] | None = None, committed: Positions = NOTHING, expired_until: int = 0
) -> BatchJoin:
    return BatchJoin(RULES, {} if states is None else states, AnswerClock(), committed, expired_until)


def published(join: BatchJoin) -> list[Outcome]:
    return [Outcome.FromString(value) for _, value in join.outcomes]


def test_an_outcome_carries_both_sides_and_where_they_lie() -> None:
    join = batch()
    join.add([answer("e", 5)], [labelled("e", 9)])
    assert [key for key, _ in join.outcomes] == [b"e"]
    assert published(join) == [
        Outcome(
            prediction=Prediction.FromString(answer("e", 5).value),
            label=Label(event_id="e", value=1.0, label_time_us=1050),
            kind=OUTCOME_KIND_LABELLED,
            prediction_source=SourcePosition(topic="d.predictions", partition=3, offset=5),
            label_source=SourcePosition(topic="d.labels", partition=3, offset=9),
        )
    ]


def test_what_a_newer_contract_adds_to_a_prediction_survives() -> None:
    unknown = b"\xfa\x3e\x03abc"
    known = answer("e", 0)
    join = batch()
    join.add([known._replace(value=known.value + unknown)], [labelled("e", 0)])
    assert published(join)[0].prediction.SerializeToString() == known.value + unknown


def test_early_labels_make_the_same_outcomes_as_late_ones() -> None:
    labels = [
        labelled("e", 0, 0, 1050),
        labelled("e", 1, 1, 1060),
        labelled("e", 2, 1, 1060),
        labelled("e", 3, 0, 1055),
    ]
    early, late = batch(), batch()
    early.add([], labels)
    early.add([answer("e", 0)], [])
    late.add([answer("e", 0)], labels)
    assert published(early) == published(late)
    assert [(one.kind, one.label.value) for one in published(early)] == [
        (OUTCOME_KIND_LABELLED, 0.0),
        (OUTCOME_KIND_CORRECTED, 1.0),
    ]
    assert published(early)[1].previous_label == 0.0
    assert not published(early)[0].HasField("previous_label")
    assert early.counts["early_label"] == 2
    for join in (early, late):
        assert join.counts["duplicate_label"] == join.counts["outdated_label"] == 1


def test_a_repeated_delivery_of_labels_changes_nothing() -> None:
    labels = [labelled("e", 0, 0, 1050), labelled("e", 1, 1, 1060)]
    join = batch()
    join.add([answer("e", 0)], labels + labels)
    assert len(join.outcomes) == 2


def test_a_later_label_of_the_same_value_makes_older_ones_outdated() -> None:
    join = batch()
    join.add([answer("e", 0)], [labelled("e", 0, 0, 1050), labelled("e", 1, 0, 1080), labelled("e", 2, 1, 1070)])
    assert len(join.outcomes) == 1
    assert join.counts["outdated_label"] == 1


def test_the_first_answer_is_the_primary_one() -> None:
    join = batch()
    join.add(
        [
            answer("e", 0, role=ROLE_REPEAT, name="r"),
            answer("e", 1, role=ROLE_SHADOW, name="s"),
            answer("e", 2),
            answer("e", 3),
            answer("e", 4, name="q"),
        ],
        [labelled("e", 0)],
    )
    (only,) = published(join)
    assert only.prediction_source.offset == 2
    assert list(only.shadows) == [ShadowScore(model_version="7", score=0.5)]
    assert join.counts == {"repeat": 2, "shadow": 1, "answer": 1, "duplicate_prediction": 1, "joined": 1}


def test_a_pair_is_published_unless_both_sides_are_committed() -> None:
    for committed, expected in (
        (Positions(0, 0), 1),
        (Positions(1, 0), 1),
        (Positions(0, 1), 1),
        (Positions(1, 1), 0),
    ):
        join = batch(committed=committed)
        join.add([answer("e", 0)], [labelled("e", 0)])
        assert len(join.outcomes) == expected, committed


def test_labels_are_late_once_the_event_is_closed_or_too_old_for_any() -> None:
    join = batch({b"closed": Closed(1200)}, expired_until=1100)
    join.add(
        [answer("closed", 0, name="again"), answer("closed", 1, role=ROLE_SHADOW)],
        [labelled("closed", 0), labelled("unknown", 1, time=1000)],
    )
    assert not join.outcomes
    assert join.counts == {"repeat": 1, "late_shadow": 1, "late_label": 2}


def test_a_label_from_a_horizon_before_its_event_is_late_in_either_order() -> None:
    for early in (True, False):
        join = batch()
        join.add([] if early else [answer("e", 0)], [labelled("e", 0, time=900)])
        join.add([answer("e", 0)] if early else [], [])
        assert not join.outcomes
        assert join.counts["late_label"] == 1


def test_a_prediction_that_comes_late_has_a_whole_horizon() -> None:
    states: dict[bytes, EventState] = {}
    join = batch(states)
    join.add([answer(f"e{n}", n, 1000 + 20 * n) for n in range(20)] + [answer("old", 20, 1000)], [])
    watermark = 1000 + 20 * 19 - RULES.lateness_us
    assert states[b"old"].due_us == watermark + HORIZON
    assert states[b"e0"].due_us == 1000 + HORIZON


def test_labels_without_a_prediction_are_bounded() -> None:
    join = batch()
    join.add([], [labelled("e", n, n % 2, 1000 + n) for n in range(MAX_WAITING_LABELS + 5)])
    assert join.counts["excess_label"] == 5


def test_expiry() -> None:
    unlabelled = Answered(1100, answer("a", 4).value, 4, None, [Shadow("8", 0.25)])
    states: dict[bytes, EventState] = {
        b"a": unlabelled,
        b"b": Answered(1100, answer("b", 5).value, 5, UsedLabel(1, 1050, 2)),
        b"c": Waiting(1100, [UsedLabel(1, 1000, 3)]),
        b"d": Closed(1100),
    }
    expired = expire(RULES, states, 1100)
    assert expired.states == {b"a": Closed(1200), b"b": Closed(1200), b"c": None, b"d": None}
    assert expired.counts == {"expired": 1, "closed": 1, "unmatched_label": 1}
    (only,) = [Outcome.FromString(value) for _, value in expired.outcomes]
    assert (only.kind, only.label) == (OUTCOME_KIND_EXPIRED, Label(event_id="a", value=0, label_time_us=1100))
    assert not only.HasField("label_source")
    assert expire(RULES, states, 1200).states == dict.fromkeys((b"a", b"b", b"c", b"d"))


def test_a_pipeline_may_drop_what_expires() -> None:
    rules = JoinRules(3, "d.predictions", "d.labels", HORIZON, 10, 20, "drop")
    expired = expire(rules, {b"a": Answered(1100, answer("a", 4).value, 4)}, 1100)
    assert not expired.outcomes
    assert expired.counts == {"expired": 1}


def test_expiry_waits_for_active_partitions_and_for_labels() -> None:
    times = PartitionTimes()
    times.reached(0, 500, active=True)
    times.reached(1, 300, active=True)
    assert times.limit_us(0) == 300
    times.reached(1, 300, active=False)
    assert (times.limit_us(0), times.limit_us(1)) == (500, 300)
    times.reached(1, 300, active=True)
    times.forget(1)
    assert times.limit_us(0) == 500
    gate = ExpiryGate(500, labels_end=7)
    assert not gate.open_at(6)
    assert gate.open_at(7)


@pytest.mark.parametrize(
    ("times", "reached"),
    [
        ([1000, 1010, 1005], 1010),
        ([1000, 5000], 1000),
        ([1000, 5000, 1001, 5000], 1001),
        ([1000, 5000, 5010], 5010),
        ([1000, 5000, 9000], 1000),
        ([], 0),
    ],
)
def test_a_single_leap_does_not_move_the_time(times: list[int], reached: int) -> None:
    clock = AnswerClock()
    for time in times:
        clock = clock.after(time, max_jump_us=20)
    assert clock.highest_us == reached
    assert clock.watermark_us(10) == max(0, reached - 10)
