"""When the horizon of an event has passed, and what follows. Pure.

Time is event time, never the clock on the wall. Two things must hold before what is due at time T expires:

1. The predictions have reached T: the watermark of the partition (highest confirmed event time less the lateness) is
   at T or beyond, and so is that of every other partition of this process that still has predictions to read, the
   *active* ones. A partition that is read to its end does not hold the others back.
2. The labels have been read up to where their partition ended when 1 held. Without this, labels that were there in
   time would be late only because this process read the predictions faster; with it, an idle label topic holds
   nothing back, since its end has been read. `ExpiryGate` keeps that end.

So a label that was in its topic before the predictions reached the horizon of its event is never late, however far the
reading of labels lags behind. Labels do not move the time: after the last prediction nothing expires, and one wrong
label time cannot expire a partition.

The time until which events have expired is committed to Kafka with the offsets, in the same transaction as the
outcomes of what expired. A store that is older than the commit, or is rebuilt from the topics, first joins everything
below the commit, then expires until the committed time without emitting anything, and so is where the lost one was.
The exception: an id is forgotten one more horizon after its event expired; what still comes for it then begins anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from headrace.outcomes.event_state import Answered, Closed, EventState, Waiting
from headrace.outcomes.join import JoinRules, OutcomeEncoder, OutgoingOutcome
from headrace.v1.prediction_pb2 import OUTCOME_KIND_EXPIRED

NEGATIVE = 0.0


class ExpiryGate(NamedTuple):
    """What may expire once the labels have been read far enough."""

    until_us: int
    """Event time in microseconds that the predictions have reached."""
    labels_end: int
    """End offset of the labels after that."""

    def open_at(self, labels_position: int) -> bool:
        """Whether the labels have been read far enough, up to this next offset."""
        return labels_position >= self.labels_end


class PartitionTimes:
    """Event times that the partitions of this process have reached."""

    def __init__(self) -> None:
        self._watermarks: dict[int, int] = {}
        self._active: set[int] = set()

    def reached(self, partition: int, watermark_us: int, *, active: bool) -> None:
        """Note where a partition is.

        Args:
            partition: its number.
            watermark_us: of its predictions, in microseconds.
            active: whether it had predictions to read when it was last looked at.
        """
        self._watermarks[partition] = watermark_us
        (self._active.add if active else self._active.discard)(partition)

    def forget(self, partition: int) -> None:
        """The partition is not of this process any more."""
        self._watermarks.pop(partition, None)
        self._active.discard(partition)

    def limit_us(self, partition: int) -> int:
        """Event time until which events of the partition may expire, in microseconds; 0 for none."""
        return min(self._watermarks[one] for one in {partition, *self._active})


@dataclass(frozen=True, slots=True)
class Expired:
    """What follows when events are due.

    Attributes:
        states: what is kept of each, None for nothing.
        outcomes: what to publish.
        counts: what happened to how many, by word.
    """

    states: dict[bytes, EventState | None]
    outcomes: list[OutgoingOutcome]
    counts: Counter[str]


def expire(rules: JoinRules, states: Mapping[bytes, EventState], until_us: int) -> Expired:
    """Expire events that are due.

    Args:
        rules: what is declared.
        states: what the store has of them, in the order in which they are due.
        until_us: event time in microseconds at which all of them are due; what is due by then in its next state, too,
            goes at once.
    """
    after: dict[bytes, EventState | None] = {}
    outcomes: list[OutgoingOutcome] = []
    counts: Counter[str] = Counter()
    encoder = OutcomeEncoder(rules)
    for event_id, state in states.items():
        if isinstance(state, Answered):
            forgotten_us = state.due_us + rules.horizon_us
            after[event_id] = Closed(forgotten_us) if forgotten_us > until_us else None
            if state.label is not None:
                counts["closed"] += 1
                continue
            counts["expired"] += 1
            if rules.expired == "negative":
                outcomes.append(encoder.encode(event_id, state, OUTCOME_KIND_EXPIRED, NEGATIVE, state.due_us))
        else:
            after[event_id] = None
            if isinstance(state, Waiting):
                counts["unmatched_label"] += len(state.labels)
    return Expired(after, outcomes, counts)
