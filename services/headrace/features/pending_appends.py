"""What a batch appends to event logs, and which of its events another worker came between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from headrace.features.accepted_events import BoolArray
from headrace.features.log_rewriting import TrimmedLogs
from headrace.features.state_writer import FIRST_BYTES, KnownLogs
from headrace.pipeline.events import Int64Array
from headrace.pipeline.state import Records
from headrace.pipeline.stored_logs import EntityLogs

FIRST = np.dtype(f"S{FIRST_BYTES}")


@dataclass(frozen=True)
class LogAdditions:
    """What n events add to the event logs of one entity.

    Attributes:
        logs: the logs as they were read.
        prefix: what the names of the logs begin with.
        records: what each event adds, shape (n,).
        merging: which events add anything, shape (n,).
    """

    logs: EntityLogs
    prefix: str
    records: Records
    merging: BoolArray


class PendingAppends:
    """What is left to append of a batch of n events."""

    def __init__(self, additions: Sequence[LogAdditions], trimmed: TrimmedLogs) -> None:
        """Args:
        additions: by entity.
        trimmed: what was rewritten since the logs were read.
        """
        self._entities = [_Entity(one) for one in additions]
        for entity, rewrites in zip(self._entities, trimmed.events, strict=False):
            for rewrite in rewrites:
                entity.lengths[rewrite.slot] = len(rewrite.content)
                entity.first[rewrite.slot] = rewrite.content[:FIRST_BYTES]
        for entity in self._entities:
            entity.appended = entity.lengths.copy()
        self._rewritten = trimmed.rewritten
        self._taken: list[Int64Array] = []

    def take(self, rows: npt.NDArray[np.intp]) -> tuple[dict[str, bytes], KnownLogs]:
        """What the given events add, by log name, and what is known of these logs. `found` comes next."""
        deltas: dict[str, bytes] = {}
        self._taken = [entity.take(rows, deltas) for entity in self._entities]
        pairs = list(zip(self._entities, self._taken, strict=True))
        none = np.zeros(0, np.int64)
        return deltas, KnownLogs(
            np.concatenate([none, *(entity.lengths[slots] for entity, slots in pairs)]),
            np.concatenate([none, *(np.full(len(slots), entity.size) for entity, slots in pairs)]),
            np.concatenate([none, *(entity.appended[slots] for entity, slots in pairs)]),
            np.concatenate([np.zeros(0, FIRST), *(entity.first[slots] for entity, slots in pairs)]),
            self._rewritten,
        )

    def found(self, overtaken: Sequence[int]) -> None:
        """What the append has returned: numbers of logs that are not what they were known as."""
        first = 0
        for entity, slots in zip(self._entities, self._taken, strict=True):
            mine = [number - first for number in overtaken if first <= number < first + len(slots)]
            entity.overtaken[slots[mine]] = True
            first += len(slots)

    def overtaken(self) -> npt.NDArray[np.intp]:
        """Which events have a log that another worker came to."""
        if not any(entity.overtaken.any() for entity in self._entities):
            return np.zeros(0, np.intp)
        return np.flatnonzero(np.any([entity.overtaken[entity.slots] for entity in self._entities], axis=0))


class _Entity:
    """The logs of one entity: their known and expected lengths, and their first bytes, by slot."""

    def __init__(self, additions: LogAdditions) -> None:
        logs = additions.logs
        self._records = additions.records
        self._merging = additions.merging
        self._names = [additions.prefix + text for text in logs.ids]
        self.slots = logs.slots
        self.size = additions.records.itemsize
        self.lengths = np.fromiter(map(len, logs.events), np.int64, len(logs.events))
        self.appended = self.lengths
        self.first = np.array([log[:FIRST_BYTES] for log in logs.events], FIRST)
        self.overtaken = np.zeros(len(logs.events), np.bool_)

    def take(self, rows: npt.NDArray[np.intp], deltas: dict[str, bytes]) -> Int64Array:
        """Add to `deltas` what the given events add; the slots that they add to, in order."""
        rows = rows[self._merging[rows]]
        of_rows = self.slots[rows]
        by_slot = np.argsort(of_rows, kind="stable")
        sorted_slots = of_rows[by_slot]
        starts = np.flatnonzero(np.diff(sorted_slots, prepend=-1))
        slots = sorted_slots[starts]
        self.appended[slots] += np.diff(starts, append=len(rows)) * self.size
        added = self._records[rows[by_slot]].tobytes()
        edges = [*(starts * self.size).tolist(), len(added)]
        for slot, (begin, end) in zip(slots.tolist(), pairwise(edges), strict=True):
            deltas[self._names[slot]] = added[begin:end]
        return slots
