"""The features of one entity for all events of some of its keys, with everything known that was to be known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.offline.event_table import HASH, ID, TIME, event_columns
from headrace.offline.label_table import KNOWN, PREVIOUS, VALUE
from headrace.pipeline.events import FloatArray, Int64Array
from headrace.pipeline.state import LABEL_RECORD, EntityPlan, FeaturePlan, Records, label_records
from headrace.pipeline.windows import EntityState, SortedLog, feature_vectors

GROUP_ROWS = 100_000
LARGEST_ORDER = 2**62

Rows = npt.NDArray[np.intp]


def entity_only(plan: FeaturePlan, entity: EntityPlan) -> FeaturePlan:
    """The plan with the features of one entity alone; the vectors keep their width."""
    return replace(plan, entities=(entity,), on_demand=(), derived=())


def entity_features(
    plan: FeaturePlan, entity: EntityPlan, events: pl.DataFrame, labels: pl.DataFrame | None
) -> FloatArray:
    """Features of n events, each as of its own time, shape (n, aggregations of the entity).

    Args:
        plan: the compiled pipeline.
        entity: one of its entities.
        events: all events of the keys in question, as `event_table` has them. Of two with one key and id, the first
            is in the log.
        labels: the labels of these events in sequence, with the event's time and key; None without labels.
    """
    out = np.empty((len(events), len(entity.aggregations)))
    if not len(events):
        return out
    slots = events[entity.field].rank("dense").to_numpy().astype(np.int64) - 1
    order = np.argsort(slots, kind="stable")
    events, slots = events[order], slots[order]
    additions, label_slots = _label_log(entity, events, slots, labels)
    only = entity_only(plan, entity)
    for group in _groups(slots, events[TIME].to_numpy()):
        part, first = events[group], int(slots[group.start])
        columns, of = event_columns(plan.pipeline.event, part), slots[group] - first
        hashes = part[HASH].to_numpy()
        logged = _first_of_each(of, hashes)
        known = slice(*np.searchsorted(label_slots, [first, int(slots[group.stop - 1]) + 1]))
        log = SortedLog.from_values(
            [b""] * (int(of[-1]) + 1), entity.event_record, entity.event_records(columns, hashes)[logged], of[logged]
        )
        label_log = (
            SortedLog.from_values([b""] * (int(of[-1]) + 1), LABEL_RECORD, additions[known], label_slots[known] - first)
            if entity.has_labels
            else None
        )
        out[order[group]] = feature_vectors(only, columns, [EntityState(of, log, label_log)])[:, entity.columns]
    return out


def _label_log(
    entity: EntityPlan, events: pl.DataFrame, slots: Int64Array, labels: pl.DataFrame | None
) -> tuple[Records, Int64Array]:
    """Label records of the keys and their slots, by slot."""
    if labels is None or not entity.has_labels:
        return np.zeros(0, LABEL_RECORD), np.zeros(0, np.int64)
    keys = events.select(entity.field).with_columns(pl.Series("#slot", slots)).unique(entity.field)
    labels = labels.join(keys, on=entity.field, how="inner").sort("#slot", maintain_order=True)
    records = label_records(
        labels[ID].to_list(),
        labels[TIME].to_numpy(),
        labels[KNOWN].to_numpy(),
        labels[VALUE].to_numpy(),
        np.array(labels[PREVIOUS].fill_null(np.nan).to_numpy(), np.float64),
    )
    # What the stream keeps too: labels that add no positive matter only where all labelled events are counted.
    kept = records["positive"] != 0
    if entity.keeps_negatives:
        kept |= records["labelled"] != 0
    return records[kept], labels["#slot"].to_numpy()[kept]


def _groups(slots: Int64Array, times: Int64Array) -> Iterator[slice]:
    """Runs of whole keys, small enough for one evaluation each. `slots` ascend."""
    span = int(times.max() - times.min()) + 2
    most_keys = max(LARGEST_ORDER // span - 1, 1)
    start = 0
    while start < len(slots):
        end = min(start + GROUP_ROWS, len(slots))
        last = min(int(slots[end - 1]), int(slots[start]) + most_keys - 1)
        # Not in the middle of a key: the last one is left to the next group, or taken whole where it is the only one.
        if end < len(slots) and slots[end] == slots[end - 1] and last == slots[end - 1] > slots[start]:
            last -= 1
        end = int(np.searchsorted(slots, last, "right"))
        yield slice(start, end)
        start = end


def _first_of_each(slots: Int64Array, hashes: npt.NDArray[np.uint64]) -> Rows:
    """Positions of the first event of each key and id, in order."""
    pairs = pl.DataFrame({"slot": slots, "hash": hashes})
    return np.flatnonzero(pairs.select(pl.struct("slot", "hash").is_first_distinct()).to_series().to_numpy())
