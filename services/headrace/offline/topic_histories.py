"""What the topics of a deployed pipeline hold, in memory, for recomputing vectors at the positions they recorded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.features.decoding import decode_partition
from headrace.features.outcome_decoding import decode_outcomes
from headrace.features.time_guard import TimeGuard
from headrace.offline.progress import Progress, untold
from headrace.offline.topic_records import topic_records
from headrace.pipeline import EventColumns, Pipeline
from headrace.pipeline.events import Int64Array
from headrace.pipeline.recompute import EventHistory, LabelHistory
from headrace.platform.topics import Topics
from headrace.v1.prediction_pb2 import OUTCOME_KIND_EXPIRED, Outcome


@dataclass(frozen=True)
class TopicEvents:
    """The events of a topic that the stream takes.

    Attributes:
        history: the events.
        late: rows of those that came later than allowed.
        rejected: records that the stream sets aside, by reason.
        partitions: number of partitions.
        complete_from: event time in microseconds before which events have left the topic; 0 where none has.
    """

    history: EventHistory
    late: frozenset[int]
    rejected: Counter[str]
    partitions: int
    complete_from: int


@dataclass(frozen=True)
class TopicLabels:
    """The labels of a topic that belong into the state.

    Attributes:
        history: the labels.
        partitions: number of partitions.
        complete_from: label time in microseconds before which labels have left the topic; 0 where none has.
    """

    history: LabelHistory
    partitions: int
    complete_from: int


@dataclass
class _Rows:
    """Events, row by row."""

    ids: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    texts: list[Sequence[str]] = field(default_factory=list)
    numbers: list[Sequence[float]] = field(default_factory=list)
    partitions: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    late: set[int] = field(default_factory=set)


async def read_event_history(
    bootstrap: str, topics: Topics, pipeline: Pipeline, progress: Progress = untold
) -> TopicEvents:
    """`events` as far as it goes now.

    Raises:
        KafkaFault: Kafka does not answer, or has no such topic.
    """
    records = await topic_records(bootstrap, topics.events, progress)
    rows, rejected, complete_from = _Rows(), Counter[str](), 0
    for partition in records.partitions:
        guard, first = TimeGuard(), len(rows.ids)
        async for run in records.of_partition(partition):
            decoded = decode_partition(pipeline, run, guard)
            guard = decoded.guard
            rejected.update(one.reason for one in decoded.rejected)
            for accepted in decoded.accepted:
                if accepted.late:
                    rows.late.add(len(rows.ids))
                rows.ids.append(accepted.event.event_id)
                rows.times.append(accepted.event.time_us)
                rows.texts.append(accepted.event.texts)
                rows.numbers.append(accepted.event.numbers)
                rows.partitions.append(partition)
                rows.offsets.append(accepted.offset)
        if partition in records.trimmed and len(rows.ids) > first:
            complete_from = max(complete_from, rows.times[first] + pipeline.lateness)
    columns = EventColumns.from_rows(pipeline.event, rows.ids, rows.times, rows.texts, rows.numbers)
    places = np.array(rows.partitions, np.int64), np.array(rows.offsets, np.int64)
    history = EventHistory(columns, *places)
    return TopicEvents(history, frozenset(rows.late), rejected, len(records.partitions), complete_from)


async def read_label_history(
    bootstrap: str, topics: Topics, pipeline: Pipeline, progress: Progress = untold
) -> TopicLabels:
    """The labels of `outcomes`, as far as it goes now, of events that are in the state.

    Raises:
        KafkaFault: Kafka does not answer, or has no such topic.
    """
    records = await topic_records(bootstrap, topics.outcomes, progress)
    used: list[Outcome] = []
    places: list[tuple[int, int]] = []
    complete_from = 0
    for partition in records.partitions:
        first = len(used)
        async for run in records.of_partition(partition):
            for offset, _, outcome in decode_outcomes(pipeline, run)[0]:
                if outcome.prediction.ingested and outcome.kind != OUTCOME_KIND_EXPIRED:
                    used.append(outcome)
                    places.append((partition, offset))
        if partition in records.trimmed and len(used) > first:
            complete_from = max(complete_from, used[first].label.label_time_us)

    def column(values: Sequence[int]) -> Int64Array:
        return np.array(values, np.int64)

    history = LabelHistory(
        [outcome.prediction.event_id for outcome in used],
        [[outcome.prediction.entities[at] for outcome in used] for at in range(len(pipeline.entities))],
        column([outcome.prediction.event_time_us for outcome in used]),
        column([outcome.label.label_time_us for outcome in used]),
        np.array([outcome.label.value for outcome in used], np.float64),
        np.array([o.previous_label if o.HasField("previous_label") else math.nan for o in used], np.float64),
        column([partition for partition, _ in places]),
        column([offset for _, offset in places]),
    )
    return TopicLabels(history, len(records.partitions), complete_from)
