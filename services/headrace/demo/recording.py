"""What a replay finds when it reads the topics back, as one row per event."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from headrace.demo.history import History
from headrace.outcomes.answer_clock import AnswerClock
from headrace.pipeline import Pipeline
from headrace.v1.alert_pb2 import Alert
from headrace.v1.event_pb2 import Event, Label, Rejected
from headrace.v1.model_pb2 import ModelVersion, RouteTable
from headrace.v1.prediction_pb2 import (
    DEGRADATION_FEATURES_DEFAULTED,
    OUTCOME_KIND_EXPIRED,
    ROLE_ANSWER,
    ROLE_REPEAT,
    Outcome,
    Prediction,
)

PARTITIONS = 4
NONE = -1


@dataclass(frozen=True)
class Place:
    """Where a record lies and when it came there.

    Attributes:
        partition: of its topic.
        offset: in the partition.
        time_us: its Kafka timestamp in microseconds.
    """

    partition: int
    offset: int
    time_us: int


class Recording:
    """Every record of a replay, filed under its event.

    Attributes:
        history: the n events.
        versions: version names in order of appearance; `version` holds positions in it.
        models: announced versions by name.
        routes: route tables with the time at which they were appended, in microseconds.
        alerts: alerts in order.
        rejected: what services set aside.
        refused: events of the replay that were set aside and will have no prediction, with the reason.
        failed_requests: calls that had no answer in the end, by method.
    """

    def __init__(self, history: History, pipeline: Pipeline) -> None:
        """Args:
        history: what is replayed.
        pipeline: the declaration.
        """
        n = len(history)
        self.history = history
        self._row = {text: row for row, text in enumerate(history.ids)}
        self.event = _Places(n)
        self.outcome = _Places(n)
        self.prediction_time_us = np.zeros(n, np.int64)
        self.prediction_partition = np.full(n, NONE, np.int64)
        self.due_us = np.zeros(n, np.int64)
        self._pipeline = pipeline
        self._clocks = [AnswerClock() for _ in range(PARTITIONS)]
        self.answers = np.zeros(n, np.int32)
        self._answer_id: dict[int, str] = {}
        self.duplicated_answers: set[int] = set()
        self.repeats = 0
        self.degraded = 0
        self.score = np.full(n, np.nan)
        self.version = np.full(n, NONE, np.int32)
        self.features = np.full((n, len(pipeline.feature_names)), np.nan)
        self.channel = np.zeros(n, np.int8)
        self.defaulted = np.zeros(n, np.bool_)
        self.event_positions = np.full((n, PARTITIONS), NONE, np.int64)
        self.outcome_positions = np.full((n, PARTITIONS), NONE, np.int64)
        self.labels = np.zeros(n, np.int32)
        self.outcomes = np.zeros(n, np.int32)
        self.expired = np.zeros(n, np.bool_)
        self.label_time_us = np.zeros(n, np.int64)
        self.label = np.full(n, np.nan)
        self.versions: list[str] = []
        self._version: dict[str, int] = {}
        self.models: dict[str, ModelVersion] = {}
        self.routes: list[tuple[RouteTable, int]] = []
        self.alerts: list[Alert] = []
        self.rejected: list[Rejected] = []
        self.refused: list[str] = []
        self.failed_requests: list[str] = []
        self.counts = Counts()

    def file_event(self, value: bytes, place: Place) -> None:
        """An event; what is not of this replay is ignored."""
        row = self._row.get(Event.FromString(value).event_id)
        if row is not None:
            self.counts.events += self.event.file(row, place)

    def file_label(self, value: bytes, place: Place) -> None:
        """A label."""
        row = self._row.get(Label.FromString(value).event_id)
        if row is not None:
            self.counts.labels += not self.labels[row]
            self.labels[row] += 1

    def file_prediction(self, value: bytes, place: Place) -> None:
        """A prediction. Its features, score and version are those of the first answer."""
        prediction = Prediction.FromString(value)
        row = self._row.get(prediction.event_id)
        if row is None:
            return
        watermark_us = self._moved_clock(place.partition, prediction.event_time_us)
        if prediction.role == ROLE_REPEAT:
            self.repeats += 1
        if prediction.role != ROLE_ANSWER:
            return
        if self.answers[row]:
            if self._answer_id[row] != prediction.prediction_id:
                self.duplicated_answers.add(row)
                self.answers[row] += 1
            return
        self.answers[row] = 1
        self._answer_id[row] = prediction.prediction_id
        self.counts.predictions += 1
        self.prediction_time_us[row] = place.time_us
        self.prediction_partition[row] = place.partition
        self.due_us[row] = max(prediction.event_time_us, watermark_us) + self._pipeline.label.horizon
        self.score[row] = prediction.score
        self.version[row] = self._number(prediction.model_version)
        self.features[row] = prediction.features
        self.channel[row] = prediction.channel
        self.degraded += bool(prediction.degradations)
        self.defaulted[row] = DEGRADATION_FEATURES_DEFAULTED in prediction.degradations
        _pad(self.event_positions, row, prediction.event_positions)
        _pad(self.outcome_positions, row, prediction.outcome_positions)

    def file_outcome(self, value: bytes, place: Place) -> None:
        """An outcome."""
        outcome = Outcome.FromString(value)
        row = self._row.get(outcome.prediction.event_id)
        if row is None:
            return
        self.outcomes[row] += 1
        if self.outcome.file(row, place):
            self.counts.outcomes += 1
            self.expired[row] = outcome.kind == OUTCOME_KIND_EXPIRED
            self.label_time_us[row] = outcome.label.label_time_us
            self.label[row] = outcome.label.value

    def file_model(self, value: bytes, place: Place) -> None:
        """An announced version."""
        model = ModelVersion.FromString(value)
        self.models[model.version] = model
        self.counts.learned = max(self.counts.learned, model.learned_count)

    def file_route(self, value: bytes, place: Place) -> None:
        """A route table."""
        self.routes.append((RouteTable.FromString(value), place.time_us))

    def file_alert(self, value: bytes, place: Place) -> None:
        """An alert."""
        self.alerts.append(Alert.FromString(value))

    def file_rejected(self, value: bytes, place: Place) -> None:
        """A record that was set aside."""
        rejected = Rejected.FromString(value)
        self.rejected.append(rejected)
        if rejected.source.topic.endswith(".events"):
            event = Event()
            with suppress(DecodeError):
                event.ParseFromString(rejected.value)
            if event.event_id in self._row:
                self.refused.append(f"event {event.event_id}: {rejected.detail}")

    @property
    def champion(self) -> str:
        """The version that serves now; empty before the first."""
        return self.routes[-1][0].champion.model.version if self.routes else ""

    def predicted(self, rows: slice | npt.NDArray[np.intp]) -> bool:
        """Whether all these events have their prediction."""
        return bool((self.answers[rows] > 0).all())

    def due(self, labelled: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which events must have an outcome as the predictions stand, bool (n,).

        Args:
            labelled: events whose label is published, bool (n,).
        """
        answered = self.answers > 0
        if self._pipeline.label.expired == "drop":
            return answered & labelled
        watermarks = np.array([clock.watermark_us(self._pipeline.lateness) for clock in self._clocks])
        return answered & (labelled | (self.due_us <= watermarks[self.prediction_partition]))

    def _moved_clock(self, partition: int, time_us: int) -> int:
        """Move the time that the join has for a partition of `predictions`; returns its watermark."""
        clock = self._clocks[partition].after(time_us, max_jump_us=self._pipeline.max_jump)
        self._clocks[partition] = clock
        return clock.watermark_us(self._pipeline.lateness)

    def _number(self, version: str) -> int:
        if version not in self._version:
            self._version[version] = len(self.versions)
            self.versions.append(version)
        return self._version[version]


@dataclass
class Counts:
    """Events that have reached each stage.

    Attributes:
        events: in `events`.
        predictions: answered.
        labels: in `labels`.
        outcomes: joined.
        learned: outcomes that the newest version has learned.
    """

    events: int = 0
    predictions: int = 0
    labels: int = 0
    outcomes: int = 0
    learned: int = 0


@dataclass
class _Places:
    rows: int
    partition: npt.NDArray[np.int64] = field(init=False)
    offset: npt.NDArray[np.int64] = field(init=False)
    time_us: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.partition, self.offset, self.time_us = (np.full(self.rows, NONE, np.int64) for _ in range(3))

    def file(self, row: int, place: Place) -> bool:
        """Keep the first place of a row; returns whether this is it."""
        if self.offset[row] != NONE:
            return False
        self.partition[row], self.offset[row], self.time_us[row] = place.partition, place.offset, place.time_us
        return True


def _pad(into: npt.NDArray[np.int64], row: int, positions: Sequence[int]) -> None:
    into[row, : len(positions)] = positions
