"""Events whose id a key's log holds already."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.pipeline.events import Int64Array, UInt64Array
from headrace.platform.feature_state import EntityLogs


def find_duplicates(logs: EntityLogs, hashes: UInt64Array, candidates: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which of n events must not be merged into their entity's logs because their id is there, or came before.

    Args:
        logs: the stored logs of the batch's keys.
        hashes: id hash of each event, shape (n,).
        candidates: which events are to be merged, shape (n,).

    Returns:
        True for duplicates among the candidates, shape (n,).
    """
    size = logs.plan.event_record.itemsize
    lengths = np.fromiter(map(len, logs.events), np.int64, len(logs.events)) // size
    stored = np.frombuffer(b"".join(logs.events), logs.plan.event_record)["id"].astype(np.uint64)
    known = _pairs(np.repeat(np.arange(len(logs.events)), lengths), stored)
    mine = _pairs(logs.slots, hashes)
    # Comparing every stored record with the batch is cheaper the other way round: few of the batch, many stored.
    batch = np.sort(mine)
    at = np.minimum(np.searchsorted(batch, known), len(batch) - 1) if len(batch) else np.zeros(0, np.intp)
    seen = known[batch[at] == known] if len(batch) else known[:0]
    duplicate = np.isin(mine, seen)
    rows = np.flatnonzero(candidates & ~duplicate)
    _, first = np.unique(mine[rows], return_index=True)
    repeated = np.ones(len(rows), np.bool_)
    repeated[first] = False
    duplicate[rows[repeated]] = True
    return duplicate & candidates


def _pairs(slots: Int64Array, hashes: UInt64Array) -> UInt64Array:
    """One 64-bit number per (slot, id): equal pairs are equal, others collide as seldom as the hashes do."""
    return hashes ^ (slots.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
