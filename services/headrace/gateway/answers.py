"""What events were answered with: columns over a batch, and the part of one caller. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.gateway.routing import Choice
from headrace.pipeline.events import FloatArray
from headrace.v1.prediction_pb2 import DEGRADATION_MODEL_IN_PROCESS, Degradation, Prediction

NONE: tuple[Degradation.ValueType, ...] = ()
_IN_PROCESS = (DEGRADATION_MODEL_IN_PROCESS,)


@dataclass(frozen=True, eq=False, slots=True)
class FeatureState:
    """What features were read from.

    Attributes:
        event_positions: last merged offset by partition of `events`; empty when the state was not read.
        outcome_positions: the same for `outcomes`.
        newest_us: production time of the newest record in the state, in microseconds; 0 when it is empty or unread.
        degradations: what was missing.
    """

    event_positions: Sequence[int]
    outcome_positions: Sequence[int]
    newest_us: int
    degradations: tuple[Degradation.ValueType, ...] = NONE


@dataclass(frozen=True, slots=True)
class Maker:
    """What scores were made with.

    Attributes:
        choice: the version, and why it was chosen.
        in_process: whether it ran inside this process.
    """

    choice: Choice
    in_process: bool

    @property
    def degradations(self) -> tuple[Degradation.ValueType, ...]:
        """What was missing."""
        return _IN_PROCESS if self.in_process else NONE


@dataclass(slots=True)
class AnsweredRows:
    """The answers to n events of a batch, in order.

    Attributes:
        event_ids: of the events.
        prediction_ids: of the answers.
        scores: float64 as Python numbers; NaN where an event has no score.
        decisions: that follow from the scores.
        makers: what each score was made with; None where an event has none.
        values: features, shape (n, width), float64.
        states: what their features were read from.
        degradations: what was missing for all of them, what their states and makers say aside.
        answered_us: when they were made, wall clock, in microseconds.
        repeats: by row, the first answer again where an event was answered before; it counts instead of all above.
    """

    event_ids: Sequence[str]
    prediction_ids: Sequence[str]
    scores: Sequence[float]
    decisions: Sequence[str]
    makers: Sequence[Maker | None]
    values: FloatArray
    states: Sequence[FeatureState]
    degradations: tuple[Degradation.ValueType, ...]
    answered_us: int
    repeats: dict[int, Prediction] = field(default_factory=dict)

    @property
    def is_uniform(self) -> bool:
        """Whether all were made in the same way from the same."""
        return len(set(map(id, self.states))) <= 1 and len(set(map(id, self.makers))) <= 1

    def degradations_of(self, row: int) -> tuple[Degradation.ValueType, ...]:
        """What was missing for an event that was not answered before."""
        maker = self.makers[row]
        missing = self.states[row].degradations + self.degradations
        return missing + maker.degradations if maker is not None else missing


@dataclass(frozen=True, slots=True)
class Answer:
    """The part of one caller.

    Attributes:
        rows: of its batch.
        first: its first row.
        count: how many are its own.
    """

    rows: AnsweredRows
    first: int
    count: int


def joined(answers: Sequence[Answer]) -> Answer:
    """The answers to the parts of one call as one."""
    if len(answers) == 1:
        return answers[0]
    parts = [(one.rows, slice(one.first, one.first + one.count)) for one in answers]
    starts = np.cumsum([0, *(one.count for one in answers)]).tolist()
    whole = AnsweredRows(
        [event_id for rows, part in parts for event_id in rows.event_ids[part]],
        [one for rows, part in parts for one in rows.prediction_ids[part]],
        [score for rows, part in parts for score in rows.scores[part]],
        [decision for rows, part in parts for decision in rows.decisions[part]],
        [maker for rows, part in parts for maker in rows.makers[part]],
        np.concatenate([rows.values[part] for rows, part in parts]),
        [state for rows, part in parts for state in rows.states[part]],
        tuple(dict.fromkeys(missing for rows, _ in parts for missing in rows.degradations)),
        max(rows.answered_us for rows, _ in parts),
        {
            start + row - part.start: repeat
            for (rows, part), start in zip(parts, starts, strict=False)
            for row, repeat in rows.repeats.items()
            if part.start <= row < part.stop
        },
    )
    return Answer(whole, 0, starts[-1])
