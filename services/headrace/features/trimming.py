"""Which records no window will reach any more, and logs that carry enough of them to be worth rewriting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.pipeline.state import HEADER_TIME, EntityPlan

SLACK_RECORDS = 32
"""Expired records that a log may always carry."""


EVENT_SOURCES = "events/"
IDLE = ":idle"
"""What is stored beside the fence of a partition that holds nothing back ends in this."""
TRIMMED = "trimmed"
"""Field of the sources hash: the latest safe time that logs were trimmed by, in microseconds."""


def safe_time(sources: Mapping[str, str]) -> int:
    """The event time that every partition of `events` has left behind for good, in microseconds.

    Trimming, coarsening, sweeping and what counts as late all measure from here: the lowest of the partitions' highest
    event times at their last commits. After any crash nothing is evaluated again that lies further before it than the
    pipeline's lateness.

    Args:
        sources: what is stored beside the fences, by source partition. Partitions that are idle do not count, unless
            all of them are.

    Returns:
        0 while a partition that has events has not said how far it is: then nothing may be dropped.
    """
    stored = [text for name, text in sources.items() if name.startswith(EVENT_SOURCES)]
    active = [text for text in stored if not text.endswith(IDLE)] or stored
    return min((committed_time(text) for text in active), default=0)


def committed_time(stored: str) -> int:
    """Highest event time at a partition's last commit, from what is stored beside its fence; 0 for none."""
    return int(stored.removesuffix(IDLE).rpartition(":")[2] or 0)


@dataclass(frozen=True)
class Rewrite:
    """A log to be replaced, if it is still what it was.

    First record and length alone could be those of a log that was deleted and has grown again; the last record tells.

    Attributes:
        slot: position of the key in the batch.
        length: expected length in bytes.
        first: expected first record, which carries the epoch once a log was rewritten.
        last: expected last bytes, as many.
        content: what to store instead; nothing for a log that is to be deleted.
    """

    slot: int
    length: int
    first: bytes
    last: bytes
    content: bytes


def plan_rewrites(plan: EntityPlan, record: np.dtype[Any], logs: Sequence[bytes], horizon: int) -> list[Rewrite]:
    """Logs of which at least a third, and more than the slack, lies at or before the horizon.

    Args:
        plan: the entity.
        record: layout of the logs.
        logs: stored logs by slot.
        horizon: event time in microseconds at or before which no window will reach any more.
    """
    size = record.itemsize
    rewrites = []
    for slot in _aged(record, logs, horizon):
        stored = logs[slot]
        records = np.frombuffer(stored, record)
        kept = records[records["time"] > horizon]
        has_header = records["time"][0] == HEADER_TIME
        expired = len(records) - len(kept) - int(has_header)
        if expired <= max(SLACK_RECORDS, len(records) // 3):
            continue
        epoch = int(records["id"][0]) + 1 if has_header else 1
        rewrites.append(
            Rewrite(slot, len(stored), stored[:size], stored[-size:], plan.header(record, epoch) + kept.tobytes())
        )
    return rewrites


def _aged(record: np.dtype[Any], logs: Sequence[bytes], horizon: int) -> list[int]:
    """Slots of logs that may carry enough expired records: one record of each says so, in whose order logs grow."""
    size = record.itemsize
    fields: Any = record.fields
    offset = fields["time"][1]
    slots = [slot for slot, stored in enumerate(logs) if len(stored) > SLACK_RECORDS * size]
    times = np.frombuffer(b"".join([_record_at(logs[slot], size, offset) for slot in slots]), np.int64)
    return [slots[at] for at in np.flatnonzero(times <= horizon).tolist()]


def _record_at(stored: bytes, size: int, offset: int) -> bytes:
    at = max(SLACK_RECORDS, len(stored) // size // 3) * size + offset
    return stored[at : at + 8]


def plan_deletions(record: np.dtype[Any], logs: Sequence[bytes], horizon: int) -> list[Rewrite]:
    """Logs whose every record lies at or before the horizon.

    Args:
        record: layout of the logs.
        logs: stored logs by slot; one that is not there is left alone.
        horizon: event time in microseconds at or before which no window will reach any more.
    """
    size = record.itemsize
    return [
        Rewrite(slot, len(stored), stored[:size], stored[-size:], b"")
        for slot, stored in enumerate(logs)
        if stored and not (np.frombuffer(stored, record)["time"] > horizon).any()
    ]
