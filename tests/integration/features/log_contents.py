"""What the topics and the state hold, read back, and what they should hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from redis.asyncio import Redis

from headrace.features.accepted_events import AcceptedEvent
from headrace.features.decoding import decode_partition
from headrace.features.outcome_decoding import decode_outcomes
from headrace.features.time_guard import TimeGuard
from headrace.pipeline.events import hash_ids
from headrace.pipeline.recompute import EventHistory, LabelHistory, Positions, recompute
from headrace.pipeline.state import HEADER_TIME, LABEL_RECORD, FeaturePlan, label_records
from headrace.platform import kafka
from headrace.platform.event_codec import event_columns
from headrace.platform.feature_state import StateKeys
from headrace.platform.kafka import KafkaAdmin, TopicPartition
from headrace.platform.rejected_records import REPLAYED
from headrace.v1.event_pb2 import Rejected
from headrace.v1.prediction_pb2 import OUTCOME_KIND_EXPIRED, Outcome
from headrace.v1.vector_pb2 import FeatureVector

Place = tuple[int, int]
"""Partition and offset."""


async def read_topic(bootstrap: str, topic: str) -> list[Any]:
    """All committed records of a topic, in offset order by partition."""
    async with KafkaAdmin(bootstrap) as admin:
        ends = await admin.end_offsets([topic])
    records: list[Any] = []
    async with kafka.consumer(bootstrap, partitions=list(ends)) as consumer:
        await consumer.seek_to_beginning()
        while any([await consumer.position(at) < end for at, end in ends.items()]):
            for of_partition in (await consumer.getmany(timeout_ms=100, max_records=5000)).values():
                records += of_partition
    return sorted(records, key=lambda record: (record.partition, record.offset))


@dataclass(frozen=True)
class Contents:
    """What the topics hold."""

    plan: FeaturePlan
    accepted: dict[Place, AcceptedEvent]
    refused: dict[Place, Rejected]
    outcomes: dict[Place, Outcome]
    vectors: dict[Place, FeatureVector]
    """By place of the event, as readers of `vectors` take them."""
    all_vectors: int
    rejected: list[Rejected]

    @staticmethod
    async def read(bootstrap: str, topics: Any, plan: FeaturePlan) -> Contents:
        """Read everything back."""
        accepted: dict[Place, AcceptedEvent] = {}
        refused: dict[Place, Rejected] = {}
        events = await read_topic(bootstrap, topics.events)
        for partition in range(4):
            decoded = decode_partition(plan.pipeline, [r for r in events if r.partition == partition], TimeGuard())
            accepted |= {(partition, event.offset): event for event in decoded.accepted}
            refused |= {(partition, record.source.offset): record for record in decoded.rejected}
        outcomes: dict[Place, Outcome] = {}
        for record in await read_topic(bootstrap, topics.outcomes):
            read, _ = decode_outcomes(plan.pipeline, [record])
            outcomes |= {(record.partition, offset): outcome for offset, _, outcome in read}
        vectors: dict[Place, FeatureVector] = {}
        highest: dict[int, int] = {}
        records = await read_topic(bootstrap, topics.vectors)
        for record in records:
            vector = FeatureVector.FromString(record.value)
            source = vector.source
            assert record.partition == source.partition
            if source.offset > highest.get(source.partition, -1):
                highest[source.partition] = source.offset
                vectors[source.partition, source.offset] = vector
                assert record.key == accepted[source.partition, source.offset].key
        rejected = [Rejected.FromString(record.value) for record in await read_topic(bootstrap, topics.rejected)]
        return Contents(
            plan,
            accepted,
            refused,
            outcomes,
            vectors,
            len(records),
            [one for one in rejected if one.reason != REPLAYED],
        )

    @property
    def labels(self) -> dict[Place, Outcome]:
        """Outcomes that belong into the label logs."""
        return {
            place: outcome
            for place, outcome in self.outcomes.items()
            if outcome.prediction.ingested and outcome.kind != OUTCOME_KIND_EXPIRED
        }

    def wrong_vectors(self) -> list[Place]:
        """Places of vectors that differ from their recomputation at the positions that they recorded.

        Those of late events are not promised to equal it.
        """
        places = [place for place, vector in self.vectors.items() if not vector.late]
        found = [self.vectors[place] for place in places]
        queries = event_columns(self.plan.pipeline, [self.accepted[place].event for place in places])
        history = event_columns(self.plan.pipeline, [event.event for event in self.accepted.values()])
        expected = recompute(
            self.plan,
            queries,
            Positions(
                np.array([_pad(vector.event_positions) for vector in found]),
                np.array([_pad(vector.outcome_positions) for vector in found]),
            ),
            EventHistory(history, *_columns(list(self.accepted))),
            self._label_history(),
        )
        served = np.array([vector.values for vector in found])
        return [places[row] for row in np.flatnonzero((served != expected).any(1))]

    def missing_vectors(self) -> list[Place]:
        """Places of events that should have a vector and have none."""
        return [
            place for place, event in self.accepted.items() if place not in self.vectors and not event.event.answered
        ]

    async def wrong_keys(self, client: Redis, keys: StateKeys) -> list[str]:
        """Logs whose records are not exactly those of their key; what no window reaches any more may be gone."""
        stored: dict[str, Any] = {
            name.decode(): value
            async for names in _names(client, keys)
            for name, value in zip(names, await client.mget(names), strict=True)
        }
        expected = self._expected(keys)
        newest = max(event.event.time_us for event in self.accepted.values())
        retention = {f"{keys.prefix}:{kind}:{one.entity}": one.retention for one in self.plan.entities for kind in "el"}
        wrong = []
        for name in expected.keys() | stored.keys():
            horizon = newest - retention[name.rpartition(":")[0]]
            found, wanted = _rows(name, stored.get(name, b""), self), _rows(name, expected.get(name, b""), self)
            if not found <= wanted or any(row[0] > horizon for row in wanted - found):
                wrong.append(name)
            if len(found) != _count(name, stored.get(name, b""), self):
                wrong.append(f"{name}: a record twice")
        return wrong

    def _expected(self, keys: StateKeys) -> dict[str, bytes]:
        events = [event.event for event in self.accepted.values()]
        columns = event_columns(self.plan.pipeline, events)
        hashes = hash_ids(columns.ids)
        logs: dict[str, dict[int, bytes]] = {}
        for entity in self.plan.entities:
            records = entity.event_records(columns, hashes)
            for row, key in enumerate(columns.texts[entity.field]):
                log = logs.setdefault(keys.event_log(entity.entity) + key, {})
                log.setdefault(int(hashes[row]), records[row : row + 1].tobytes())
        expected = {name: b"".join(log.values()) for name, log in logs.items()}
        labels = self._label_history()
        records = label_records(labels.ids, labels.times, labels.known, labels.values, labels.previous)
        for entity in self.plan.entities:
            at = [one.name for one in self.plan.pipeline.entities].index(entity.entity)
            for row in np.flatnonzero(records["positive"]).tolist() if entity.has_labels else ():
                name = keys.label_log(entity.entity) + labels.entities[at][row]
                expected[name] = expected.get(name, b"") + records[row : row + 1].tobytes()
        return expected

    def _label_history(self) -> LabelHistory:
        labels = list(self.labels.values())
        partitions, offsets = _columns(list(self.labels))
        return LabelHistory(
            [outcome.prediction.event_id for outcome in labels],
            [[o.prediction.entities[at] for o in labels] for at in range(len(self.plan.pipeline.entities))],
            np.array([outcome.prediction.event_time_us for outcome in labels], np.int64),
            np.array([outcome.label.label_time_us for outcome in labels], np.int64),
            np.array([outcome.label.value for outcome in labels], np.float64),
            np.array([o.previous_label if o.HasField("previous_label") else math.nan for o in labels], np.float64),
            partitions,
            offsets,
        )


async def _names(client: Redis, keys: StateKeys) -> Any:
    for kind in "el":
        cursor = -1
        while cursor:
            cursor, names = await client.scan(max(cursor, 0), match=f"{keys.prefix}:{kind}:*", count=5000)
            if names:
                yield names


def _rows(name: str, value: bytes, contents: Contents) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in _records(name, value, contents).tolist()}


def _count(name: str, value: bytes, contents: Contents) -> int:
    return len(_records(name, value, contents))


def _records(name: str, value: bytes, contents: Contents) -> Any:
    record: Mapping[str, Any] = {
        f":{kind}:{one.entity}:": one.event_record if kind == "e" else LABEL_RECORD
        for one in contents.plan.entities
        for kind in "el"
    }
    records = np.frombuffer(value, next(dtype for part, dtype in record.items() if part in name))
    return records[records["time"] != HEADER_TIME]


def _pad(positions: Sequence[int]) -> list[int]:
    return [*positions, *[-1] * (4 - len(positions))]


def _columns(places: Sequence[Place]) -> tuple[Any, Any]:
    return np.array([p for p, _ in places], np.int64), np.array([o for _, o in places], np.int64)


def partitions_of(topic: str) -> list[TopicPartition]:
    """The four partitions of a data topic."""
    return [TopicPartition(topic, number) for number in range(4)]
