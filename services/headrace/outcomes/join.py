"""Predictions and labels into outcomes. Pure: no topic, no store, no clock on the wall.

What the outcomes of an event are depends on nothing but the two logs:

- Its *primary* prediction is the first `ROLE_ANSWER` in the log.
- Its labels count in log order. The first makes the outcome. One with a later label time and another value makes a
  correction. One that says the same, or whose time is not later than that of the label in use, makes nothing. Labels
  that come before the prediction wait and count in the same order when it comes, so the order in which the two logs
  are read does not matter.
- An event is due at `base + horizon`, where `base` is its event time, or, for a prediction that came later than the
  lateness allows, the watermark of the predictions at its place in the log. So a prediction never expires before a
  whole horizon has passed after it came. A label whose time lies a horizon or more before `base` is late.
- When the time has passed what is due (see `expiry` for who decides that), an event without a label expires, and one
  with a label is closed. Labels that come then are late and change nothing.

Exactly once: an outcome is made from a pair, a prediction at one offset and a label at another. A pair of which both
sides lie below the committed offsets was emitted by the transaction that committed the later of the two; it is not
emitted again. Any other pair has not been emitted, because at least one of its sides has not been read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from headrace.outcomes.answer_clock import AnswerClock
from headrace.outcomes.event_state import Answered, Closed, EventState, Shadow, UsedLabel, Waiting
from headrace.outcomes.progress import Positions
from headrace.pipeline import Label as DeclaredLabel
from headrace.v1.event_pb2 import SourcePosition
from headrace.v1.prediction_pb2 import (
    OUTCOME_KIND_CORRECTED,
    OUTCOME_KIND_LABELLED,
    ROLE_ANSWER,
    ROLE_SHADOW,
    Outcome,
    OutcomeKind,
    Prediction,
    Role,
)

MAX_WAITING_LABELS = 100


@dataclass(frozen=True, slots=True)
class JoinRules:
    """What is declared about the join of one partition.

    Attributes:
        partition: number of the partition.
        predictions_topic: full name.
        labels_topic: full name.
        horizon_us: how long after an event its label is waited for, in microseconds of event time.
        lateness_us: how far predictions may come out of order, in microseconds of event time.
        max_jump_us: largest step ahead that moves the time without confirmation, in microseconds.
        expired: what a missing label means: "drop" or "negative".
        label: which values are labels.
    """

    partition: int
    predictions_topic: str
    labels_topic: str
    horizon_us: int
    lateness_us: int
    max_jump_us: int
    expired: Literal["drop", "negative"]
    label: DeclaredLabel = field(default_factory=DeclaredLabel)


class PredictionArrival(NamedTuple):
    """One prediction as read."""

    event_id: bytes
    offset: int
    time_us: int
    """Event time, in microseconds since 1970-01-01 UTC."""
    role: Role.ValueType
    prediction_id: str
    model_version: str
    score: float
    value: bytes
    """The serialized `Prediction`."""


class LabelArrival(NamedTuple):
    """One label as read."""

    event_id: bytes
    label: UsedLabel


class OutgoingOutcome(NamedTuple):
    """An outcome to publish."""

    key: bytes
    value: bytes
    """The serialized `Outcome`."""


class BatchJoin:
    """Joins one batch of one partition.

    Args:
        rules: what is declared.
        states: what the store has of the events of the batch; changed in place, and read afterwards for what to store.
        clock: event time of the partition before the batch.
        committed: next offsets as committed to Kafka; see the module for what is not emitted.
        expired_until_us: event time until which events have expired, in microseconds.

    Attributes:
        outcomes: what to publish, in order.
        clock: after the batch.
        counts: what became of the records that lie at or above the commit, by word.
    """

    def __init__(
        self,
        rules: JoinRules,
        states: dict[bytes, EventState],
        clock: AnswerClock,
        committed: Positions,
        expired_until_us: int,
    ) -> None:
        self.outcomes: list[OutgoingOutcome] = []
        self.clock = clock
        self.counts: Counter[str] = Counter()
        self._rules = rules
        self._states = states
        self._committed = committed
        self._expired_until_us = expired_until_us
        self._encoder = OutcomeEncoder(rules)

    def add(self, predictions: Sequence[PredictionArrival], labels: Sequence[LabelArrival]) -> None:
        """Join the next records of both logs, each in its order; which log goes first makes no difference."""
        for prediction in predictions:
            self.add_prediction(prediction)
        for label in labels:
            self.add_label(label)

    def add_prediction(self, arrival: PredictionArrival) -> None:
        """Join the next prediction of the log."""
        rules = self._rules
        self.clock = self.clock.after(arrival.time_us, max_jump_us=rules.max_jump_us)
        base = max(arrival.time_us, self.clock.watermark_us(rules.lateness_us))
        due = max(base + rules.horizon_us, self._expired_until_us + 1)
        state = self._states.get(arrival.event_id)
        if arrival.role == ROLE_ANSWER:
            fate = self._add_answer(arrival, due, state)
        elif arrival.role == ROLE_SHADOW:
            fate = self._add_shadow(arrival, due, state)
        else:
            fate = "repeat"
        if arrival.offset >= self._committed.predictions:
            self.counts[fate] += 1

    def add_label(self, arrival: LabelArrival) -> None:
        """Join the next label of the log."""
        event_id, label = arrival
        state = self._states.get(event_id)
        if isinstance(state, Answered):
            self._use(event_id, state, label)
            return
        fate = "late_label" if isinstance(state, Closed) else self._wait(event_id, state, label)
        if label.offset >= self._committed.labels:
            self.counts[fate] += 1

    def _add_answer(self, arrival: PredictionArrival, due: int, state: EventState | None) -> str:
        if isinstance(state, Closed):
            return "repeat"
        if isinstance(state, Answered):
            first = Prediction.FromString(state.prediction).prediction_id
            return "duplicate_prediction" if first == arrival.prediction_id else "repeat"
        answered = Answered(due, arrival.value, arrival.offset)
        self._states[arrival.event_id] = answered
        if state is not None:
            answered.shadows = state.shadows
            for label in state.labels:
                self._use(arrival.event_id, answered, label)
        return "answer"

    def _add_shadow(self, arrival: PredictionArrival, due: int, state: EventState | None) -> str:
        if state is None:
            state = self._states[arrival.event_id] = Waiting(due)
        if isinstance(state, Closed):
            return "late_shadow"
        if any(shadow.model_version == arrival.model_version for shadow in state.shadows):
            return "duplicate_prediction"
        state.shadows.append(Shadow(arrival.model_version, arrival.score))
        if isinstance(state, Waiting):
            state.due_us = max(state.due_us, due)
        # The outcome is made already; a correction would carry the score.
        return "late_shadow" if isinstance(state, Answered) and state.label is not None else "shadow"

    def _wait(self, event_id: bytes, state: Waiting | None, label: UsedLabel) -> str:
        due = label.time_us + self._rules.horizon_us
        if due <= self._expired_until_us:
            # The watermark is beyond, so it is too old for any prediction that may come.
            return "late_label"
        if state is None:
            self._states[event_id] = Waiting(due, [label])
            return "early_label"
        labels = state.labels
        # Whatever the prediction will be, a label that is not later than one before it is not used: that one, or a
        # later one, would be in use by then, or both are late.
        if labels and label.time_us <= labels[-1].time_us:
            same = any(one.value == label.value and one.time_us == label.time_us for one in labels)
            return "duplicate_label" if same else "outdated_label"
        if len(labels) == MAX_WAITING_LABELS:
            return "excess_label"
        labels.append(label)
        state.due_us = max(state.due_us, due)
        return "early_label"

    def _use(self, event_id: bytes, answered: Answered, label: UsedLabel) -> None:
        used = answered.label
        if label.time_us <= answered.due_us - 2 * self._rules.horizon_us:
            fate = "late_label"
        elif used is None:
            answered.label = label
            self._emit(event_id, answered, label, OUTCOME_KIND_LABELLED, None)
            fate = "joined"
        elif label.value == used.value:
            # A later one confirms the one in use, which therefore is as new.
            answered.label = used._replace(time_us=max(used.time_us, label.time_us))
            fate = "duplicate_label"
        elif label.time_us <= used.time_us:
            fate = "outdated_label"
        else:
            answered.label = label
            self._emit(event_id, answered, label, OUTCOME_KIND_CORRECTED, used.value)
            fate = "corrected"
        if not self._is_committed(answered.offset, label.offset):
            self.counts[fate] += 1

    def _emit(
        self,
        event_id: bytes,
        answered: Answered,
        label: UsedLabel,
        kind: OutcomeKind.ValueType,
        previous: float | None,
    ) -> None:
        if self._is_committed(answered.offset, label.offset):
            return
        self.outcomes.append(
            self._encoder.encode(
                event_id,
                answered,
                kind,
                label.value,
                label.time_us,
                label_offset=label.offset,
                previous=previous,
            )
        )

    def _is_committed(self, prediction_offset: int, label_offset: int) -> bool:
        return prediction_offset < self._committed.predictions and label_offset < self._committed.labels


class OutcomeEncoder:
    """Makes the outcomes of one partition. One message serves for all, which is faster than to make each.

    Args:
        rules: names of the topics.
    """

    def __init__(self, rules: JoinRules) -> None:
        self._message = Outcome(
            prediction_source=SourcePosition(topic=rules.predictions_topic, partition=rules.partition)
        )
        self._label = self._message.label
        self._prediction_source = self._message.prediction_source
        self._label_source = SourcePosition(topic=rules.labels_topic, partition=rules.partition)

    def encode(
        self,
        event_id: bytes,
        answered: Answered,
        kind: OutcomeKind.ValueType,
        value: float,
        label_time_us: int,
        *,
        label_offset: int | None = None,
        previous: float | None = None,
    ) -> OutgoingOutcome:
        """An outcome as it is published.

        Args:
            event_id: key.
            answered: the prediction.
            kind: how it came to be.
            value: of the label.
            label_time_us: of the label, in microseconds since 1970-01-01 UTC.
            label_offset: where the label lies; None where there is none.
            previous: value that a correction replaces.
        """
        message, label = self._message, self._label
        label.event_id, label.value, label.label_time_us = event_id.decode(), value, label_time_us
        message.kind = kind
        self._prediction_source.offset = answered.offset
        if label_offset is None:
            message.ClearField("label_source")
        else:
            self._label_source.offset = label_offset
            message.label_source.CopyFrom(self._label_source)
        if previous is None:
            message.ClearField("previous_label")
        else:
            message.previous_label = previous
        del message.shadows[:]
        for shadow in answered.shadows:
            message.shadows.add(model_version=shadow.model_version, score=shadow.score)
        # Field 1, as it was read: it is not parsed and written again, so fields of a newer contract survive.
        prediction = answered.prediction
        return OutgoingOutcome(event_id, b"\x0a" + _varint(len(prediction)) + prediction + message.SerializeToString())


def event_ids(predictions: Sequence[PredictionArrival], labels: Sequence[LabelArrival]) -> list[bytes]:
    """The events of a batch, each once."""
    return list(dict.fromkeys([one.event_id for one in predictions] + [one.event_id for one in labels]))


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
