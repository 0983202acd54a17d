"""Stored logs of entity keys that were read a moment ago. Pure.

Features depend on the event's time and fields, and so it is not features that are kept but what they are made from: the
logs of each key, with the moment that they were read at. A row of features is made from logs of one moment, whose
positions in `events` and `outcomes` are what the answer says that it was made at, so that it can be recomputed exactly
from there; how old it is, it says itself. An event whose keys are not known as of one state is read anew, all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.gateway.bounded_cache import BoundedCache, CacheCounts

Key = tuple[int, str]

# A tuple of a small number and a text, two bytes objects beside their contents, and the entry itself.
OBJECT_BYTES = 56 + 49 + 2 * 33 + 64
# A moment, its two lists, and a place and a number for each partition. Counted for each key, although keys that were
# read together share one: it is there as long as the last of them.
MOMENT_BYTES = 72 + 24 + 2 * 72
POSITION_BYTES = 8 + 32


@dataclass(frozen=True, eq=False, slots=True)
class Moment:
    """The state of the features at one time.

    Attributes:
        event_positions: last merged offset by partition of `events`.
        outcome_positions: the same for `outcomes`.
        newest_us: production time of the newest merged record, in microseconds; 0 when there is none.
        read_at: when it was read, by the cache's clock.
    """

    event_positions: Sequence[int]
    outcome_positions: Sequence[int]
    newest_us: int
    read_at: float

    def is_state_of(self, other: Moment) -> bool:
        """Whether nothing was merged between the two: all logs were the same."""
        return self is other or (
            self.event_positions == other.event_positions and self.outcome_positions == other.outcome_positions
        )


@dataclass(frozen=True, slots=True)
class KeyLogs:
    """The stored logs of one key.

    Attributes:
        events: its event log.
        labels: its label log; empty for an entity without label-derived features.
        moment: when they were so; None for a key that is not to be kept for a while.
        until: the clock's time up to which that is so.
    """

    events: bytes
    labels: bytes
    moment: Moment | None
    until: float


def _size_of(key: Key, logs: KeyLogs) -> int:
    # A character of an id takes four bytes at most.
    size = OBJECT_BYTES + 4 * len(key[1]) + len(logs.events) + len(logs.labels)
    if logs.moment is not None:
        partitions = len(logs.moment.event_positions) + len(logs.moment.outcome_positions)
        size += MOMENT_BYTES + POSITION_BYTES * partitions
    return size


class FeatureCache:
    """Logs of keys by entity and id, for a bounded time.

    Args:
        capacity_bytes: most bytes of all entries; the key used longest ago leaves first. 0 turns the cache off.
        max_age_s: how long after it was read a log may be used, in seconds. 0 turns the cache off.
        clock: monotonic seconds.
    """

    def __init__(self, capacity_bytes: int, max_age_s: float, clock: Callable[[], float]) -> None:
        self._entries: BoundedCache[Key, KeyLogs] = BoundedCache(capacity_bytes, _size_of)
        self._max_age_s = max_age_s
        self._clock = clock

    @property
    def enabled(self) -> bool:
        """Whether it keeps anything."""
        return self._max_age_s > 0 and self._entries.capacity_bytes > 0

    @property
    def counts(self) -> CacheCounts:
        """Events found, events not found, keys that left for others."""
        return self._entries.counts

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries."""
        return self._entries.size_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def now(self) -> float:
        """The time to give a `Moment` that is about to be read: before it is asked for, so that no age is too low."""
        return self._clock()

    def lookup(self, rows: Sequence[Sequence[str]]) -> list[tuple[KeyLogs, ...] | None]:
        """The logs of events whose keys are all known as of one moment.

        Args:
            rows: for each of n events the ids of its entities, in the pipeline's order.

        Returns:
            For each event the logs of its entities; None where it is to be read.
        """
        if not self.enabled:
            return [None] * len(rows)
        now = self._clock()
        found = [self._row(ids, now) for ids in rows]
        hits = len(found) - found.count(None)
        self.counts.hits += hits
        self.counts.misses += len(found) - hits
        return found

    def _row(self, ids: Sequence[str], now: float) -> tuple[KeyLogs, ...] | None:
        row: list[KeyLogs] = []
        moment: Moment | None = None
        for key in enumerate(ids):
            logs = self._entries.get(key)
            if logs is None or logs.moment is None or logs.until <= now:
                return None
            if moment is not None and not logs.moment.is_state_of(moment):
                return None
            moment = logs.moment
            row.append(logs)
        return tuple(row) if row else None

    def store(
        self,
        entity: int,
        ids: Sequence[str],
        events: Sequence[bytes],
        labels: Sequence[bytes],
        moment: Moment,
    ) -> None:
        """Keep what was read of one entity.

        Args:
            entity: its number in the pipeline.
            ids: n distinct ids.
            events: their event logs, n.
            labels: their label logs, n; none for an entity without label-derived features.
            moment: when they were so. One object for everything that was read together.
        """
        if not self.enabled:
            return
        until = moment.read_at + self._max_age_s
        for i, text in enumerate(ids):
            key = entity, text
            before = self._entries.get(key)
            if before is not None and before.moment is None and before.until > moment.read_at:
                continue
            self._entries.put(key, KeyLogs(events[i], labels[i] if labels else b"", moment, until))

    def changing(self, ids: Sequence[str]) -> None:
        """Say that the state of an event's keys is about to change, because this process has passed the event on.

        Nothing is kept of them for as long as anything would be: what is read before the change is merged is not used
        after it.

        Args:
            ids: of its entities, in the pipeline's order.
        """
        if not self.enabled:
            return
        until = self._clock() + self._max_age_s
        for key in enumerate(ids):
            self._entries.put(key, KeyLogs(b"", b"", None, until))
