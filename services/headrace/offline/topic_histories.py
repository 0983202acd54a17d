"""What the topics of a deployed pipeline hold, in memory, for recomputing vectors at the positions they recorded."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from headrace.features.accepted_events import AcceptedEvents, joined
from headrace.features.decoding import decode_partition
from headrace.features.outcome_decoding import decode_outcomes
from headrace.features.time_guard import TimeGuard
from headrace.offline.progress import Progress, untold
from headrace.offline.topic_records import topic_records
from headrace.pipeline import EventColumns, Pipeline
from headrace.pipeline.events import Int64Array
from headrace.pipeline.recompute import EventHistory, LabelHistory
from headrace.platform.topics import Topics
from headrace.v1.prediction_pb2 import OUTCOME_KIND_EXPIRED


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


async def read_event_history(
    bootstrap: str, topics: Topics, pipeline: Pipeline, progress: Progress = untold
) -> TopicEvents:
    """`events` as far as it goes now.

    Raises:
        KafkaFault: Kafka does not answer, or has no such topic.
    """
    records = await topic_records(bootstrap, topics.events, progress)
    parts: list[AcceptedEvents] = []
    partitions: list[Int64Array] = []
    rejected, complete_from = Counter[str](), 0
    for partition in records.partitions:
        guard, first = TimeGuard(), 0
        async for run in records.of_partition(partition):
            decoded = decode_partition(pipeline, run, guard)
            guard = decoded.guard
            rejected.update(one.reason for one in decoded.rejected)
            if len(decoded.accepted):
                first = first or int(decoded.accepted.columns.times[0])
                parts.append(decoded.accepted)
                partitions.append(np.full(len(decoded.accepted), partition, np.int64))
        if partition in records.trimmed and first:
            complete_from = max(complete_from, first + pipeline.lateness)
    late = np.flatnonzero(np.concatenate([np.zeros(0, np.bool_), *(part.late for part in parts)]))
    none = np.zeros(0, np.int64)
    history = EventHistory(
        joined([part.columns for part in parts]) if parts else EventColumns.from_rows(pipeline.event, [], [], [], []),
        np.concatenate([none, *partitions]),
        np.concatenate([none, *(part.offsets for part in parts)]),
    )
    return TopicEvents(history, frozenset(late.tolist()), rejected, len(records.partitions), complete_from)


async def read_label_history(
    bootstrap: str, topics: Topics, pipeline: Pipeline, progress: Progress = untold
) -> TopicLabels:
    """The labels of `outcomes`, as far as it goes now, of events that are in the state.

    Raises:
        KafkaFault: Kafka does not answer, or has no such topic.
    """
    records = await topic_records(bootstrap, topics.outcomes, progress)
    ids: list[str] = []
    entities: list[list[str]] = [[] for _ in pipeline.entities]
    places: list[tuple[int, int, int, int]] = []
    values: list[tuple[float, float]] = []
    complete_from = 0
    for partition in records.partitions:
        first = len(ids)
        async for run in records.of_partition(partition):
            for offset, _, outcome in decode_outcomes(pipeline, run)[0]:
                prediction, label = outcome.prediction, outcome.label
                if not prediction.ingested or outcome.kind == OUTCOME_KIND_EXPIRED:
                    continue
                ids.append(prediction.event_id)
                for keys, key in zip(entities, prediction.entities, strict=True):
                    keys.append(key)
                places.append((prediction.event_time_us, label.label_time_us, partition, offset))
                previous = outcome.previous_label if outcome.HasField("previous_label") else math.nan
                values.append((label.value, previous))
        if partition in records.trimmed and len(ids) > first:
            complete_from = max(complete_from, places[first][1])
    times, known, partitions, offsets = np.array(places, np.int64).reshape(-1, 4).T
    value, replaced = np.array(values, np.float64).reshape(-1, 2).T
    history = LabelHistory(ids, entities, times, known, value, replaced, partitions, offsets)
    return TopicLabels(history, len(records.partitions), complete_from)
