"""Logs that carry enough expired records to be worth rewriting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.pipeline.state import HEADER_TIME, EntityPlan

SLACK_RECORDS = 32
"""Expired records that a log may always carry."""


@dataclass(frozen=True)
class Rewrite:
    """A log to be replaced, if it is still what it was.

    Attributes:
        slot: position of the key in the batch.
        length: expected length in bytes.
        first: expected first record, which carries the epoch once a log was rewritten.
        content: what to store instead.
    """

    slot: int
    length: int
    first: bytes
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
    for slot, stored in enumerate(logs):
        if len(stored) <= SLACK_RECORDS * size:
            continue
        records = np.frombuffer(stored, record)
        kept = records[records["time"] > horizon]
        has_header = records["time"][0] == HEADER_TIME
        expired = len(records) - len(kept) - int(has_header)
        if expired <= max(SLACK_RECORDS, len(records) // 3):
            continue
        epoch = int(records["id"][0]) + 1 if has_header else 1
        rewrites.append(Rewrite(slot, len(stored), stored[:size], plan.header(record, epoch) + kept.tobytes()))
    return rewrites
