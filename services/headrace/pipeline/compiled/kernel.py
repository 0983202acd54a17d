"""The windows of a batch straight from stored logs, in machine code: one pass over the records of each key.

The edges of an event's windows, in order, cut time into intervals. Every record lies in one of them, and what is kept
of an interval is what any window is joined from: sums, extremes, the last event. So nothing is sorted, a log may have
its records in any order, and integers are the same to the bit as by `windows`, the definition of all of this.

What a plan has to say comes in tables of integers, so that there is one machine code for all pipelines.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import cast

import numba
import numpy as np
from numba.core import config

from headrace.pipeline.aggregations.sketches import REGISTERS
from headrace.pipeline.compiled.features import measured, raw_parts
from headrace.pipeline.compiled.machine_code import Bytes, FloatArray, Integers, compiled
from headrace.pipeline.compiled.records import (
    LABEL_BYTES,
    add_itself,
    clear,
    has_coarse,
    pass_labels,
    pass_records,
    too_many,
    torn,
)
from headrace.pipeline.compiled.selected import look_at_all
from headrace.pipeline.compiled.tables import (
    BACK,
    COLUMN,
    DEFAULT,
    EDGES,
    FEATURES,
    FIRST,
    HAS_COARSE,
    HAS_LABELS,
    HIGH,
    HOP,
    LANES,
    LOOKS_AT_ALL,
    LOW,
    MEASURES,
    OPERATION,
    RAW_PARTS,
    RECORD_BYTES,
    ROWS,
    WEIGHTS,
)


@compiled
def _cut(edges: Integers, now: int, order: Integers, ends: Integers, place: Integers) -> None:
    """The edges of an event's windows in order, and the place of each edge among them.

    Args:
        edges: how far back, and the hop.
        now: the event's time.
        order: edges in the order of the event before, which is nearly this one; changed.
        ends: filled with the last time before each edge, in order.
        place: filled with the place of each edge.
    """
    for j in range(len(order)):
        hop = edges[j, HOP]
        # Before 1970 is as 1970.
        place[j] = max(((now - edges[j, BACK]) // hop + 1) * hop - 1, -1)
    for j in range(1, len(order)):
        moved, k = order[j], j
        while k > 0 and place[order[k - 1]] > place[moved]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = moved
    for j in range(len(order)):
        ends[j] = place[order[j]]
    for j in range(len(order)):
        place[order[j]] = j


@compiled
def _chained(slots: Integers, keys: int) -> tuple[Integers, Integers]:
    """For each key its first record, and for each record the next one of its key; -1 for none."""
    head = np.full(keys if len(slots) else 0, -1, np.int64)
    following = np.empty(len(slots), np.int64)
    for k in range(len(slots) - 1, -1, -1):
        following[k] = head[slots[k]]
        head[slots[k]] = k
    return head, following


@compiled
def _unfit(entity: Integers, raw: Bytes, logs: Integers, label_logs: Integers, slots: Integers) -> bool:
    """Whether an entity is to be left out. The logs are where each begins, and the last one ends."""
    size = entity[RECORD_BYTES]
    if (entity[HAS_COARSE] != 0 and has_coarse(raw, logs, size)) or torn(logs, size) or too_many(slots, logs, size):
        return True
    if entity[HAS_LABELS] == 0:
        return False
    return torn(label_logs, LABEL_BYTES) or too_many(slots, label_logs, LABEL_BYTES)


@compiled
def _longest(slots: Integers, logs: Integers, size: int) -> int:
    """The number of records of the longest log that is asked for."""
    longest = 0
    for slot in slots:
        longest = max(longest, logs[slot + 1] - logs[slot])
    return longest // size


def evaluate(
    entities: Integers,
    edges: Integers,
    lanes: Integers,
    measures: Integers,
    features: Integers,
    floats: FloatArray,
    raw: Bytes,
    layout: Integers,
    slots: Integers,
    more: Integers,
    times: Integers,
    given: FloatArray,
    out: FloatArray,
    parts: Integers,
) -> int:
    """Fill the features of all entities for n events; a bit for each entity that was left out.

    An entity is left out where one of its logs has a coarse section or is torn, or where it is asked for too often.

    Args:
        entities: this and what follows as `Tables` has it.
        edges: of the windows.
        lanes: of the records.
        measures: of the windows.
        features: to be filled.
        floats: of the features.
        raw: for each entity its event logs, then its label logs if it has any; behind all of them further records.
        layout: for each entity the number of its keys; then the length of each log in bytes.
        slots: for each entity for each event the number of its key, shape (entities n,).
        more: for each further record its key, for a call with one entity.
        times: of the events, shape (n,).
        given: for each lane for each event the field, NaN where it is absent, or what the filter says.
        out: the vectors, shape (n, width).
        parts: of the features that are finished by numpy, shape (n, parts).
    """
    n, count = len(times), len(entities)
    starts = np.zeros(len(layout) - count + 1, np.int64)
    for j in range(len(starts) - 1):
        starts[j + 1] = starts[j] + layout[count + j]
    behind = starts[len(starts) - 1]
    log, skipped = 0, 0
    for e in range(count):
        entity, keys = entities[e], layout[e]
        size, has_labels = entity[RECORD_BYTES], entity[HAS_LABELS] != 0
        my_edges = edges[entity[EDGES] : entity[EDGES + 1]]
        my_lanes = lanes[entity[LANES] : entity[LANES + 1]]
        my_given = given[entity[LANES] : entity[LANES + 1]]
        my_measures = measures[entity[MEASURES] : entity[MEASURES + 1]]
        my_slots = slots[e * n : (e + 1) * n]
        logs = starts[log : log + keys + 1]
        log += keys
        label_logs = starts[log : log + keys + 1]
        if has_labels:
            log += keys
        if _unfit(entity, raw, logs, label_logs, my_slots):
            skipped |= 1 << e
            continue
        head, following = _chained(more, keys)
        ends = np.empty(len(my_edges), np.int64)
        place = np.empty(len(my_edges), np.int64)
        order = np.arange(len(my_edges))
        kept = np.empty((entity[ROWS], len(my_edges) + 2), np.int64)
        longest = _longest(my_slots, logs, size) + len(more) + 1 if entity[LOOKS_AT_ALL] != 0 else 0
        runs = np.zeros((longest, 3), np.int64)
        found = np.empty(longest, np.int64)
        registers = np.empty(REGISTERS if longest else 0, np.uint8)
        label_kept = np.zeros((2, len(my_edges) + 1 if has_labels else 0), np.int64)
        for i in range(n):
            now, slot = times[i], my_slots[i]
            _cut(my_edges, now, order, ends, place)
            clear(my_measures, kept)
            if longest:
                runs[0, 0] = 0
            at = logs[slot]
            interval = pass_records(my_lanes, my_measures, raw, at, logs[slot + 1], size, ends, 0, kept, runs)
            if len(more):
                k = head[slot]
                while k >= 0:
                    at = behind + k * size
                    interval = pass_records(my_lanes, my_measures, raw, at, at + size, size, ends, interval, kept, runs)
                    k = following[k]
            add_itself(my_lanes, my_measures, my_given, i, len(my_edges) + 1, kept)
            if has_labels:
                label_kept[:] = 0
                pass_labels(raw, label_logs[slot], label_logs[slot + 1], now, ends, label_kept)
            for f in range(entity[FEATURES], entity[FEATURES + 1]):
                feature = features[f]
                low, high = place[feature[LOW]], place[feature[HIGH]]
                operation, column = feature[OPERATION], feature[COLUMN]
                if operation == RAW_PARTS:
                    raw_parts(my_measures, feature, low, high, kept, parts[i])
                elif operation < RAW_PARTS:
                    out[i, column] = measured(
                        my_measures, feature, floats[f, DEFAULT], low, high, now, kept, label_kept
                    )
                else:
                    x = look_at_all(
                        my_lanes,
                        my_measures[feature[FIRST]],
                        feature,
                        floats[f],
                        raw,
                        size,
                        runs,
                        low,
                        high,
                        now,
                        my_given,
                        i,
                        found,
                        registers,
                        parts[i],
                    )
                    if operation >= WEIGHTS:
                        out[i, column] = x
    return skipped


_INTEGERS = numba.types.Array(numba.types.int64, 1, "C", readonly=True)
_TABLE = numba.types.Array(numba.types.int64, 2, "C", readonly=True)
_GIVEN = numba.types.Array(numba.types.float64, 2, "C", readonly=True)
_BYTES = numba.types.Array(numba.types.uint8, 1, "C", readonly=True)
_OUT = numba.types.Array(numba.types.float64, 2, "C")
_PARTS_OUT = numba.types.Array(numba.types.int64, 2, "C")
_SIGNATURE = numba.types.int64(
    *(_TABLE,) * 5, _GIVEN, _BYTES, _INTEGERS, _INTEGERS, _INTEGERS, _INTEGERS, _GIVEN, _OUT, _PARTS_OUT
)


def load(folder: Path | None) -> Callable[..., int]:
    """`evaluate` as machine code: read from where it was kept, or else made, which takes seconds.

    It is kept beside this file, where that can be written to, or else in the folder. Many processes may do so at once.

    Args:
        folder: where to keep it otherwise; None to keep it nowhere else.
    """
    here = Path(__file__).parent
    version = hashlib.blake2b(b"".join(path.read_bytes() for path in sorted(here.glob("*.py"))), digest_size=8)
    for place in (here / "__pycache__", folder):
        if place is not None and _writable(place):
            kept = place / f"machine-code-{version.hexdigest()}"
            config.CACHE_DIR = str(kept)  # type: ignore[attr-defined]
            # Of processes that start together one makes it, and the others find it made.
            with kept.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                return cast("Callable[..., int]", numba.njit(_SIGNATURE, error_model="numpy", cache=True)(evaluate))
    return cast("Callable[..., int]", numba.njit(_SIGNATURE, error_model="numpy")(evaluate))


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
