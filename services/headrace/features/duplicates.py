"""Events whose id a key's log holds already."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headrace.pipeline.events import Int64Array, UInt64Array
from headrace.platform.feature_state import EntityLogs

FILTER_BITS = 16
FILTER_MASK = np.uint64((1 << FILTER_BITS) - 1)


def find_duplicates(logs: EntityLogs, hashes: UInt64Array, candidates: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which of n events must not be merged into their entity's logs because their id is there, or came before.

    Args:
        logs: the stored logs of the batch's keys.
        hashes: id hash of each event, shape (n,).
        candidates: which events are to be merged, shape (n,).

    Returns:
        True for duplicates among the candidates, shape (n,).
    """
    duplicate = np.zeros(len(hashes), np.bool_)
    if not candidates.any():
        return duplicate
    mine = _pairs(logs.slots, hashes)
    known = _pairs(np.repeat(np.arange(len(logs.events)), logs.lengths), logs.records["id"].astype(np.uint64))
    # Many records are stored and few events are new, so what cannot be among these is left out by their last bits.
    possible = np.zeros(1 << FILTER_BITS, np.bool_)
    possible[mine & FILTER_MASK] = True
    duplicate = np.isin(mine, known[possible[known & FILTER_MASK]])
    rows = np.flatnonzero(candidates & ~duplicate)
    _, first = np.unique(mine[rows], return_index=True)
    repeated = np.ones(len(rows), np.bool_)
    repeated[first] = False
    duplicate[rows[repeated]] = True
    return duplicate & candidates


def _pairs(slots: Int64Array, hashes: UInt64Array) -> UInt64Array:
    """One 64-bit number per (slot, id): equal pairs are equal, others collide as seldom as the hashes do."""
    return hashes ^ (slots.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
