"""Records are filed under their event, once."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.demo.history import History
from headrace.demo.parity import compare
from headrace.demo.payments import load_source
from headrace.demo.recording import Place, Recording
from headrace.pipeline import DAY, EventColumns
from headrace.pipeline.recompute import EventHistory, LabelHistory, Positions, recompute
from headrace.pipeline.state import compile_plan
from headrace.platform.pipelines import load_pipeline
from headrace.v1.event_pb2 import Event, Label, Rejected, SourcePosition
from headrace.v1.prediction_pb2 import CHANNEL_KAFKA, ROLE_ANSWER, ROLE_REPEAT, ROLE_SHADOW, Outcome, Prediction

payments = load_source(None, 400, 3)
history = payments.history()
plan = compile_plan(load_pipeline("pipelines/fraud.py"))


@pytest.fixture
def recording() -> Recording:
    return Recording(history, plan.pipeline)


def prediction(row: int, **given: object) -> bytes:
    fields: dict[str, object] = {
        "prediction_id": f"p{row}",
        "event_id": payments.transaction_id[row],
        "role": ROLE_ANSWER,
        "model_version": "000001",
        "features": [0.0] * plan.width,
        "score": 0.5,
        "channel": CHANNEL_KAFKA,
    }
    return Prediction(**fields | given).SerializeToString()  # type: ignore[arg-type]


def test_a_resent_answer_is_the_same_answer(recording: Recording) -> None:
    for _ in range(2):
        recording.file_prediction(prediction(0), Place(0, 0, 1))
    assert recording.counts.predictions == 1
    assert not recording.duplicated_answers


def test_a_second_answer_is_a_duplicate_and_the_first_stands(recording: Recording) -> None:
    recording.file_prediction(prediction(0, score=0.1), Place(0, 0, 1))
    recording.file_prediction(prediction(0, score=0.9, prediction_id="other"), Place(0, 1, 2))
    assert recording.duplicated_answers == {0}
    assert recording.counts.predictions == 1
    assert recording.score[0] == 0.1


def test_repeats_and_shadows_are_no_answers(recording: Recording) -> None:
    recording.file_prediction(prediction(0, role=ROLE_REPEAT), Place(0, 0, 1))
    recording.file_prediction(prediction(0, role=ROLE_SHADOW), Place(0, 1, 1))
    assert recording.counts.predictions == 0
    assert recording.repeats == 1


def test_what_is_not_of_the_replay_is_ignored(recording: Recording) -> None:
    recording.file_event(Event(event_id="stranger").SerializeToString(), Place(0, 0, 1))
    recording.file_label(Label(event_id="stranger").SerializeToString(), Place(0, 0, 1))
    recording.file_outcome(Outcome().SerializeToString(), Place(0, 0, 1))
    assert (recording.counts.events, recording.counts.labels, recording.counts.outcomes) == (0, 0, 0)


def served(recording: Recording) -> None:
    """All payments through one partition, evaluated one by one, a third of the frauds labelled half way."""
    n = len(payments)
    columns = history.columns
    labelled = np.arange(n // 3)
    events = np.full((n, 4), -1)
    events[:, 0] = np.arange(n)
    outcomes = np.full((n, 4), -1)
    outcomes[n // 2 :, 0] = len(labelled) - 1
    zeros = np.zeros(n, np.int64)
    labels = LabelHistory(
        [payments.transaction_id[i] for i in labelled],
        [[columns.texts[field][int(i)] for i in labelled] for field in plan.pipeline.entity_fields],
        payments.event_time_us[labelled],
        payments.event_time_us[labelled] + 7 * DAY,
        payments.fraud[labelled].astype(np.float64),
        np.full(len(labelled), np.nan),
        zeros[labelled],
        labelled,
    )
    vectors = recompute(plan, columns, Positions(events, outcomes), EventHistory(columns, zeros, np.arange(n)), labels)
    for row in range(n):
        recording.file_event(Event(event_id=payments.transaction_id[row]).SerializeToString(), Place(0, row, 1))
        recording.file_prediction(
            prediction(
                row,
                features=vectors[row].tolist(),
                event_positions=events[row].tolist(),
                outcome_positions=outcomes[row].tolist(),
            ),
            Place(0, row, 2),
        )
    for at, row in enumerate(labelled.tolist()):
        label = Label(
            event_id=payments.transaction_id[row],
            value=float(payments.fraud[row]),
            label_time_us=int(payments.event_time_us[row]) + 7 * DAY,
        )
        outcome = Outcome(prediction=Prediction(event_id=payments.transaction_id[row]), label=label)
        recording.file_outcome(outcome.SerializeToString(), Place(0, at, 3))


def test_parity_of_what_was_served_rightly(recording: Recording) -> None:
    served(recording)
    parity = compare(plan, recording)
    assert (parity.rows_compared, parity.rows_different, parity.max_abs_error) == (400, 0, 0.0)


def test_parity_finds_one_wrong_feature(recording: Recording) -> None:
    served(recording)
    recording.features[123, 4] += 1e-9
    parity = compare(plan, recording)
    assert parity.rows_different == 1
    assert 0 < parity.max_abs_error < 1e-8


def test_parity_finds_an_event_that_was_counted_too_early(recording: Recording) -> None:
    served(recording)
    recording.event_positions[:, 0] -= 1
    row = int(np.flatnonzero(np.array(payments.customer_id) == payments.customer_id[350])[-1])
    recording.event_positions[row, 0] = 0
    assert compare(plan, recording).rows_different > 0


def test_an_event_that_was_set_aside_is_named(recording: Recording) -> None:
    rejected = Rejected(
        source=SourcePosition(topic="fraud.events"),
        value=Event(event_id=payments.transaction_id[7]).SerializeToString(),
        detail="event_time_us lies 2 days ahead",
    )
    recording.file_rejected(rejected.SerializeToString(), Place(0, 0, 1))
    recording.file_rejected(
        Rejected(source=SourcePosition(topic="fraud.events"), value=b"\xff").SerializeToString(), Place(0, 1, 1)
    )
    assert recording.refused == [f"event {payments.transaction_id[7]}: event_time_us lies 2 days ahead"]
    assert len(recording.rejected) == 2


def test_an_event_is_due_a_horizon_after_it_was_answered() -> None:
    clicks = load_pipeline("pipelines/clicks.py")
    minute = 60_000_000
    times = np.array([0, 120, 30, 121, 215]) * minute + 1_000 * minute
    columns = EventColumns(["a", "b", "c", "d", "e"], times, {}, {})
    recording = Recording(History("test", columns, np.zeros(5, np.bool_), np.zeros(5, np.int64)), clicks)
    for row in range(4):
        recording.file_prediction(asked(columns, row), Place(0, row, 1))
    labelled = np.array([False, False, False, True, True])
    # The watermark is half an hour behind 121, the horizon an hour: c came behind the watermark and waits from there.
    assert recording.due(labelled).tolist() == [True, False, False, True, False]
    recording.file_prediction(asked(columns, 4), Place(0, 4, 1))
    assert recording.due(labelled).tolist() == [True, True, True, True, True]


def asked(columns: EventColumns, row: int) -> bytes:
    return Prediction(
        prediction_id=f"p{row}",
        event_id=columns.ids[row],
        event_time_us=int(columns.times[row]),
        role=ROLE_ANSWER,
        features=[0.0] * 35,
    ).SerializeToString()
