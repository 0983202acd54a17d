"""The feature state in Redis: how it is named, and how it is read in one round trip.

Keys, all with the prefix `headrace:{<deployed pipeline>}:<features fingerprint>` (the braces keep them in one slot):

- `…:e:<entity>:<id>` and `…:l:<entity>:<id>`: the event log and the label log of a key, packed records.
- `…:fences`: a hash from source partition (`events/0`, `outcomes/3`) to the offset of its last merged record.
- `…:sources`: a hash with what belongs to each source partition: where its event time stands, its topic's identity.
- `…:newest`: production time of the newest merged record, in microseconds.

All definitions of the pipeline share `headrace:{<deployed pipeline>}:erased`: a hash from a hash of each erased id to
the time of its erasure.

A write moves logs and fence in one script, and a read takes them in one transaction, so the fences that are read say
exactly which records the logs hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from headrace.pipeline.events import EventColumns, Int64Array
from headrace.pipeline.state import FeaturePlan
from headrace.pipeline.stored_logs import EntityLogs
from headrace.platform.redis_connection import Command, RedisConnections, packed

EVENTS = "events"
OUTCOMES = "outcomes"
_FIRST = np.zeros(1, np.int64)
_FIRST.flags.writeable = False
REWRITTEN = "rewritten"
"""Field of the sources hash: how many logs were ever rewritten."""


def deployed_prefix(deployed: str) -> str:
    """What all keys of a deployed pipeline begin with, those of all its definitions."""
    return f"headrace:{{{deployed}}}:"


class StateKeys:
    """Names of the keys of one pipeline's state.

    Attributes:
        prefix: what all of them begin with.
        fences: the hash of last merged offsets.
        sources: the hash of what belongs to each source partition.
        newest: production time of the newest merged record.
        erased: the hash of erased ids.
    """

    def __init__(self, deployed: str, features_fingerprint: int) -> None:
        self.prefix = f"{deployed_prefix(deployed)}{features_fingerprint:016x}"
        self.erased = f"{deployed_prefix(deployed)}erased"
        self.fences = f"{self.prefix}:fences"
        self.sources = f"{self.prefix}:sources"
        self.newest = f"{self.prefix}:newest"

    def event_log(self, entity: str) -> str:
        """What the names of an entity's event logs begin with; the id follows."""
        return f"{self.prefix}:e:{entity}:"

    def label_log(self, entity: str) -> str:
        """What the names of an entity's label logs begin with; the id follows."""
        return f"{self.prefix}:l:{entity}:"


@dataclass(frozen=True)
class StateSnapshot:
    """The state of a batch's keys at one moment.

    Attributes:
        entities: one per entity of the plan.
        fences: last merged offset by source partition, for example {"events/0": 41}.
        newest_us: production time of the newest merged record in microseconds, 0 when there is none.
        replies: what the commands that rode along returned.
    """

    entities: tuple[EntityLogs, ...]
    fences: dict[str, int]
    newest_us: int
    replies: list[Any]
    _positions: dict[str, list[int]]

    def positions(self, source: str) -> list[int]:
        """Last merged offset per partition of `events` or `outcomes`, by index; -1 where nothing is merged yet."""
        if source not in self._positions:
            self._positions[source] = positions_of(self.fences, source)
        return self._positions[source]


def positions_of(fences: dict[str, int], source: str) -> list[int]:
    """Last merged offset per partition of a source, by index; -1 where nothing is merged yet.

    Trailing partitions that nothing was merged from are left out.
    """
    of_source = {int(name.rpartition("/")[2]): offset for name, offset in fences.items() if name.startswith(source)}
    return [of_source.get(partition, -1) for partition in range(max(of_source, default=-1) + 1)]


def pairs(reply: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Fields and values of a hash, from what HGETALL returns."""
    fields = iter(reply)
    return zip(fields, fields, strict=True)


def distinct(ids: Sequence[str]) -> tuple[list[str], Int64Array]:
    """The distinct ids in order of appearance, and for each id its position among them."""
    if len(ids) == 1:
        return list(ids), _FIRST
    found = list(dict.fromkeys(ids))
    if len(found) == len(ids):
        return found, np.arange(len(ids))
    index = dict(zip(found, range(len(found)), strict=True))
    return found, np.array([index[text] for text in ids], np.int64)


class FeatureStateReader:
    """Reads the state of a batch of events in one round trip."""

    def __init__(self, connections: RedisConnections, plan: FeaturePlan, deployed: str) -> None:
        """Args:
        connections: to Redis.
        plan: the compiled pipeline.
        deployed: name of the deployed pipeline.
        """
        self._connections = connections
        self._plan = plan
        self.keys = StateKeys(deployed, plan.pipeline.features_fingerprint)
        self._prefixes = [
            (entity, self.keys.event_log(entity.entity), self.keys.label_log(entity.entity)) for entity in plan.entities
        ]
        self._read_fences, self._read_newest = packed("HGETALL", self.keys.fences), packed("GET", self.keys.newest)
        # As they were read last: while nothing is merged, they and what follows from them stay the same.
        self._fences: tuple[list[bytes], dict[str, int], dict[str, list[int]]] = [], {}, {}

    async def read(self, events: EventColumns, ride_along: Sequence[Command] = ()) -> StateSnapshot:
        """The state of all keys of n events, consistent with the fences it comes with.

        Args:
            events: the events.
            ride_along: other commands for the same round trip; an error among them is raised.

        Raises:
            redis.RedisError: the state could not be read.
        """
        found, names = self._named(events)
        logs: list[Command] = [("MGET", *names)] if names else []
        replies = await self._connections.transaction(*logs, self._read_fences, self._read_newest, *ride_along)
        return self._snapshot(found, replies.pop(0) if names else [], replies)

    async def read_in_parts(
        self, events: EventColumns, keys: int, ride_along: Sequence[Command] = ()
    ) -> StateSnapshot | None:
        """The same with short commands, which let other readers in between.

        Args:
            events: the events.
            keys: most keys per command.
            ride_along: other commands for the first round trip; an error among them is raised.

        Returns:
            None when another worker merged something meanwhile, so that there is no moment that all of it is from.

        Raises:
            redis.RedisError: the state could not be read.
        """
        found, names = self._named(events)
        if len(names) <= keys:
            return await self.read(events, ride_along)
        # What is merged moves a fence, and what is trimmed is counted.
        moment: tuple[Command, ...] = (self._read_fences, ("HGET", self.keys.sources, REWRITTEN))
        values, fences, rewritten, *first = await self._connections.transaction(
            ("MGET", *names[:keys]), *moment, self._read_newest, *ride_along
        )
        for start in range(keys, len(names), keys):
            more, fences_now, rewritten_now = await self._connections.transaction(
                ("MGET", *names[start : start + keys]), *moment
            )
            if rewritten_now != rewritten or dict(pairs(fences_now)) != dict(pairs(fences)):
                return None
            values += more
        first.insert(0, fences)
        return self._snapshot(found, values, first)

    def _named(self, events: EventColumns) -> tuple[list[tuple[list[str], Int64Array]], list[str]]:
        """For each entity its distinct ids and the events' slots, and the names of all their logs."""
        found = []
        names: list[str] = []
        for entity, event_log, label_log in self._prefixes:
            ids, slots = distinct(events.texts[entity.field])
            found.append((ids, slots))
            names += [event_log + text for text in ids]
            if entity.has_labels:
                names += [label_log + text for text in ids]
        return found, names

    def _snapshot(
        self, found: Sequence[tuple[list[str], Int64Array]], logs: Sequence[bytes | None], replies: Sequence[Any]
    ) -> StateSnapshot:
        values = iter(logs)
        if replies[0] != self._fences[0]:
            self._fences = replies[0], {name.decode(): int(offset) for name, offset in pairs(replies[0])}, {}
        entities = []
        for plan, (ids, slots) in zip(self._plan.entities, found, strict=True):
            stored = [value or b"" for value in islice(values, len(ids))]
            labels = [value or b"" for value in islice(values, len(ids))] if plan.has_labels else []
            entities.append(EntityLogs(plan, ids, slots, stored, labels))
        return StateSnapshot(tuple(entities), self._fences[1], int(replies[1] or 0), list(replies[2:]), self._fences[2])
