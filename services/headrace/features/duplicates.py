"""Events whose id a key's log holds already."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.pipeline.events import UInt64Array
from headrace.pipeline.stored_logs import EntityLogs

FILTER_BITS = 17
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
    # Many records are stored and few events are new, so what cannot be among these is left out by its last bits.
    possible = np.zeros(1 << FILTER_BITS, np.bool_)
    possible[hashes & FILTER_MASK] = True
    stored = logs.records["id"]
    found = np.flatnonzero(possible[stored & FILTER_MASK])
    mine = _pairs(logs.slots, hashes)
    if len(found):
        slots = np.searchsorted(np.cumsum(logs.lengths), found, "right")
        known = np.sort(_pairs(slots, stored[found].astype(np.uint64)))
        duplicate = known[np.minimum(np.searchsorted(known, mine), len(known) - 1)] == mine
    rows = np.flatnonzero(candidates & ~duplicate)
    new = mine[rows]
    by_pair = np.argsort(new, kind="stable")
    again = new[by_pair[1:]] == new[by_pair[:-1]]
    duplicate[rows[by_pair[1:][again]]] = True
    return duplicate & candidates


def _pairs(slots: npt.NDArray[np.signedinteger[Any]], hashes: UInt64Array) -> UInt64Array:
    """One 64-bit number per (slot, id): equal pairs are equal, others collide as seldom as the hashes do."""
    return hashes ^ (slots.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
