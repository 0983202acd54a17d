"""Which records no window will reach any more, and logs that carry enough of them to be worth rewriting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.pipeline.coarse_sections import CoarseLayout, carried_bytes, read_header, read_section
from headrace.pipeline.coarsening import coarsen, coarsen_labels
from headrace.pipeline.state import HEADER_TIME, LABEL_RECORD, EntityPlan

SLACK_RECORDS = 32
"""Expired records that a log may always carry."""

WORTH_MERGING = 6
"""A log with merged hops is rewritten when that takes one part in so many off it."""

LOOKED_AT_ALWAYS = 2_000
"""A log with more records than this is looked at whenever it is read."""

MOST_NEW_CELLS = 256
"""Events of a bucket behind which a sketch is taken to meet no new cells, when the gain of merging is estimated."""


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


def plan_log_rewrites(plan: EntityPlan, logs: Sequence[bytes], safe: int) -> list[Rewrite]:
    """Event logs that are worth rewriting: without what no window will reach any more, and with old hops merged.

    Args:
        plan: the entity.
        logs: stored event logs by slot.
        safe: event time that every partition has left behind for good, in microseconds.
    """
    if plan.coarse is None:
        return plan_rewrites(plan, plan.event_record, logs, safe - plan.retention)
    rewrites = []
    for slot, stored in enumerate(logs):
        if _is_due(plan.event_record, stored) and _saves(plan, plan.coarse, stored, safe):
            merged = coarsen(plan, stored, safe - plan.lateness, safe - plan.retention)
            rewrites += _smaller(plan.event_record, slot, stored, merged)
    return rewrites


def plan_label_rewrites(plan: EntityPlan, logs: Sequence[bytes], safe: int) -> list[Rewrite]:
    """Label logs that are worth rewriting; see `plan_log_rewrites`."""
    expired, horizon, bucket = safe - plan.retention, safe - plan.lateness, plan.bucket
    if plan.coarse is None:
        return plan_rewrites(plan, LABEL_RECORD, logs, expired)
    rewrites = []
    for slot, stored in enumerate(logs):
        if not _is_due(LABEL_RECORD, stored):
            continue
        records = np.frombuffer(stored, LABEL_RECORD)
        starts = records["time"] // bucket * bucket
        old = (records["time"] > expired) & (starts + bucket <= horizon) & (records["known"] <= horizon)
        leaving = np.count_nonzero(records["time"] <= expired) + np.count_nonzero(old) - len(np.unique(starts[old]))
        if leaving > max(SLACK_RECORDS, len(records) // 3):
            rewrites += _smaller(LABEL_RECORD, slot, stored, coarsen_labels(plan, stored, horizon, expired))
    return rewrites


def _is_due(record: np.dtype[Any], stored: bytes) -> bool:
    """Whether a log is to be looked at this time: a long one always, others at one in eight of their records."""
    count = len(stored) // record.itemsize
    # The last record's id hash decides, so that it does not matter how batches are cut.
    return count > LOOKED_AT_ALWAYS or (count > SLACK_RECORDS and not stored[8 - record.itemsize] & 7)


def _saves(plan: EntityPlan, layout: CoarseLayout, stored: bytes, safe: int) -> bool:
    """Whether a rewrite is likely to take enough off a log, found out at a fraction of its cost."""
    record = plan.event_record
    gone = safe - plan.retention
    _, carriers = read_header(stored) or (0, -1)
    times = np.frombuffer(stored, record)["time"][carriers + 1 :]
    expired = times <= gone
    old = times[~expired] // layout.bucket
    old = np.sort(old[old < (safe - plan.lateness) // layout.bucket])
    events = np.diff(np.flatnonzero(np.concatenate([[True], old[1:] != old[:-1], [True]]))) if len(old) else old
    # Sketches share cells: half of the events of a bucket, say, are new to each.
    sketched = sum(cell.itemsize for _, cell in layout.sketches)
    merged = layout.record.itemsize + np.minimum(events, MOST_NEW_CELLS) * sketched // 2
    room = carried_bytes(record)
    saved = np.count_nonzero(expired) + float(np.maximum(events - merged / room, 0).sum())
    if carriers > 0:
        starts = layout.decode(read_section(stored, record))[0]["time"]
        saved += carriers * np.count_nonzero(starts + layout.bucket - 1 <= gone) / max(len(starts), 1)
    return bool(saved > max(SLACK_RECORDS, len(stored) // record.itemsize / WORTH_MERGING))


def _smaller(record: np.dtype[Any], slot: int, stored: bytes, rewritten: bytes) -> list[Rewrite]:
    size = record.itemsize
    if len(rewritten) > len(stored) - SLACK_RECORDS * size // 2:
        return []
    return [Rewrite(slot, len(stored), stored[:size], stored[-size:], rewritten)]


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
