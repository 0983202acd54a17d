"""The logs of one entity as they are stored, for a batch of events."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.pipeline.events import Int64Array
from headrace.pipeline.sorted_logs import SortedLog
from headrace.pipeline.state import LABEL_RECORD, EntityPlan
from headrace.pipeline.windows import EntityState

Records = npt.NDArray[Any]
_NONE = np.zeros(0, np.int64)


@dataclass(frozen=True)
class EntityLogs:
    """The stored logs of one entity for a batch of n events.

    Attributes:
        plan: layout.
        ids: the distinct ids of the batch; a slot is a position in it.
        slots: for each event the slot of its key, shape (n,).
        events: one stored event log per slot, empty where there is none.
        labels: one stored label log per slot; empty list when the entity has no label-derived features.
        more: event records behind the stored ones that are not stored yet, shape (k,); None for none.
        more_slots: their slots, shape (k,).
    """

    plan: EntityPlan
    ids: list[str]
    slots: Int64Array
    events: list[bytes]
    labels: list[bytes]
    more: Records | None = None
    more_slots: Int64Array | None = None

    @cached_property
    def records(self) -> Records:
        """The records of all stored event logs behind each other, headers included, shape (m,)."""
        return np.frombuffer(b"".join(self.events), self.plan.event_record)

    @cached_property
    def lengths(self) -> Int64Array:
        """Number of records of each stored event log, shape (slots,)."""
        return np.fromiter(map(len, self.events), np.int64, len(self.events)) // self.plan.event_record.itemsize

    def with_more(self, more: Records, more_slots: Int64Array) -> EntityLogs:
        """The same with event records behind the stored ones that are not stored yet.

        Args:
            more: event records, shape (k,).
            more_slots: their slots, shape (k,).
        """
        return EntityLogs(self.plan, self.ids, self.slots, self.events, self.labels, more, more_slots)

    def state(self) -> EntityState:
        """All of it sorted."""
        more, more_slots = self.more, self.more_slots
        if more is None or more_slots is None:
            more, more_slots = np.zeros(0, self.plan.event_record), _NONE
        events = SortedLog.from_values(self.events, self.plan.event_record, more, more_slots, self.plan.coarse)
        labels = None
        if self.plan.has_labels:
            labels = SortedLog.from_values(self.labels, LABEL_RECORD, np.zeros(0, LABEL_RECORD), _NONE)
        return EntityState(self.slots, events, labels)
