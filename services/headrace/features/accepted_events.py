"""Events of one partition that schema and time guard let through, as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.features.time_guard import TimeBounds, TimeGuard
from headrace.pipeline import Pipeline
from headrace.pipeline.events import EventColumns, Int64Array
from headrace.platform.event_codec import CheckedEvent, event_columns

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    """One of them.

    Attributes:
        offset: its offset.
        produced_us: its Kafka timestamp in microseconds.
        key: its Kafka key.
        event: the event.
        guard: the partition's guard after it.
        late: whether windows at its time may be incomplete already.
    """

    offset: int
    produced_us: int
    key: bytes | None
    event: CheckedEvent
    guard: TimeGuard
    late: bool = False


class Guards:
    """The time guard after each of n accepted events."""

    def __init__(self, after: Sequence[TimeGuard]) -> None:
        self._after = after

    def after(self, row: int) -> TimeGuard:
        """The guard after the event in that row."""
        return self._after[row]


class GuardsOfPart(Guards):
    """The same for the events from one row on."""

    def __init__(self, guards: Guards, first: int) -> None:
        super().__init__(())
        self._guards = guards
        self._first = first

    def after(self, row: int) -> TimeGuard:
        """The guard after the event in that row of the part."""
        return self._guards.after(self._first + row)


class GuardsInOrder(Guards):
    """The same for events that are plainly in order, made when it is asked for."""

    def __init__(self, before: TimeGuard, times: Int64Array, produced_us: Int64Array, bounds: TimeBounds) -> None:
        """Args:
        before: the guard before the first event.
        times: event times in microseconds, shape (n,).
        produced_us: Kafka timestamps in microseconds, shape (n,).
        bounds: what the pipeline allows.
        """
        super().__init__(())
        self._times = times
        self._produced_us = produced_us
        self._bounds = bounds
        self._last = -1, before

    def after(self, row: int) -> TimeGuard:
        """The guard after the event in that row; cheapest when rows are asked for in order."""
        last, guard = self._last
        if row < last:
            raise ValueError(f"row {row} was asked for after row {last}")
        between = slice(last + 1, row + 1)
        guard = guard.accept_run(self._times[between], self._produced_us[between], self._bounds)[1]
        self._last = row, guard
        return guard


@dataclass(frozen=True)
class AcceptedEvents:
    """n accepted events of one partition, in offset order.

    Attributes:
        pipeline: whose events they are.
        columns: the events.
        offsets: shape (n,).
        produced_us: Kafka timestamps in microseconds, shape (n,).
        keys: Kafka keys, n.
        answered: whether the gateway has answered them already, shape (n,).
        late: whether windows at their times may be incomplete already, shape (n,).
        guards: the partition's guard after each.
    """

    pipeline: Pipeline
    columns: EventColumns
    offsets: Int64Array
    produced_us: Int64Array
    keys: Sequence[bytes | None]
    answered: BoolArray
    late: BoolArray
    guards: Guards

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[AcceptedEvent]:
        """One by one, for those who are in no hurry."""
        texts = list(zip(*self.columns.texts.values(), strict=True)) or [()] * len(self)
        numbers = np.column_stack(list(self.columns.numbers.values())).tolist() if self.columns.numbers else []
        for row in range(len(self)):
            event = CheckedEvent(
                self.columns.ids[row],
                int(self.columns.times[row]),
                list(texts[row]),
                numbers[row] if numbers else [],
                bool(self.answered[row]),
            )
            yield AcceptedEvent(
                int(self.offsets[row]),
                int(self.produced_us[row]),
                self.keys[row],
                event,
                self.guards.after(row),
                bool(self.late[row]),
            )

    def part(self, first: int, end: int) -> AcceptedEvents:
        """The events from one row up to another."""
        rows = np.arange(first, min(end, len(self)))
        return AcceptedEvents(
            self.pipeline,
            self.columns.take(rows),
            self.offsets[rows],
            self.produced_us[rows],
            self.keys[first:end],
            self.answered[rows],
            self.late[rows],
            GuardsOfPart(self.guards, first),
        )

    @staticmethod
    def of(pipeline: Pipeline, events: Sequence[AcceptedEvent]) -> AcceptedEvents:
        """Columns of single events of one partition, in offset order."""
        return AcceptedEvents(
            pipeline,
            event_columns(pipeline, [one.event for one in events]),
            np.array([one.offset for one in events], np.int64),
            np.array([one.produced_us for one in events], np.int64),
            [one.key for one in events],
            np.array([one.event.answered for one in events], np.bool_),
            np.array([one.late for one in events], np.bool_),
            Guards([one.guard for one in events]),
        )


def joined(parts: Sequence[EventColumns]) -> EventColumns:
    """Events of several partitions behind each other."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return EventColumns(
        [text for part in parts for text in part.ids],
        np.concatenate([part.times for part in parts]),
        {name: [text for part in parts for text in part.texts[name]] for name in first.texts},
        {name: np.concatenate([part.numbers[name] for part in parts]) for name in first.numbers},
    )
