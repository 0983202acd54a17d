"""A busy key whose windows move by ten minutes: its log stays small, and its vectors stay the same."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.features.trimming import SLACK_RECORDS, Rewrite, plan_deletions, plan_label_rewrites, plan_log_rewrites
from headrace.pipeline import (
    DAY,
    HOUR,
    MINUTE,
    Entity,
    EventColumns,
    EventSchema,
    FeatureView,
    Label,
    Model,
    Money,
    Pipeline,
    Text,
    count,
    distinct,
    label_rate,
    mean,
)
from headrace.pipeline.events import hash_ids
from headrace.pipeline.state import LABEL_RECORD, compile_plan, label_records
from headrace.pipeline.stored_logs import EntityLogs
from headrace.pipeline.windows import feature_vectors

pytestmark = pytest.mark.timeout(180)

START = 1_600_000_000_000_000
BATCH = 500
DAYS = 5
HOP = 10 * MINUTE

plan = compile_plan(
    Pipeline(
        "hops",
        event=EventSchema(Text("customer"), Text("shop"), Money("cents", maximum=10_000)),
        entities=[Entity("customer", "customer")],
        key="customer",
        features=[
            FeatureView(
                "customer",
                count(HOUR, hop=HOP),
                mean("cents", DAY, hop=HOP),
                distinct("shop", DAY, hop=HOP),
                label_rate(DAY, delay=HOUR, hop=HOP),
            )
        ],
        label=Label(),
        model=Model("none", build=lambda: None),
        lateness=HOUR,
    )
)
entity = plan.entities[0]


def history(events: int, days: int) -> EventColumns:
    random = np.random.default_rng(3)
    times = START + np.sort(random.integers(0, days * DAY, events)) + random.integers(-HOUR // 2, HOUR // 2, events)
    return EventColumns(
        [f"e{i}" for i in range(events)],
        times.astype(np.int64),
        {"customer": ["c"] * events, "shop": [f"s{one}" for one in random.integers(0, 40, events)]},
        {"cents": random.integers(1, 10_000, events).astype(np.float64)},
    )


def applied(log: bytes, rewrites: list[Rewrite]) -> bytes:
    for rewrite in rewrites:
        assert (rewrite.length, log[: len(rewrite.first)], log[-len(rewrite.last) :]) == (
            len(log),
            rewrite.first,
            rewrite.last,
        )
        return rewrite.content
    return log


def test_a_busy_key_stays_within_its_bound_with_the_same_vectors() -> None:
    columns = history(100_000, DAYS)
    records = entity.event_records(columns, hash_ids(columns.ids))
    labelled = np.flatnonzero(np.random.default_rng(4).random(len(columns)) < 0.3)
    labels = label_records(
        [columns.ids[i] for i in labelled.tolist()],
        columns.times[labelled],
        columns.times[labelled] + HOUR,
        (labelled % 3 == 0).astype(np.float64),
        np.full(len(labelled), np.nan),
    )
    log, label_log, safe, largest, rewritten = b"", b"", 0, 0, 0
    for first in range(0, len(columns), BATCH):
        rows = np.arange(first, min(first + BATCH, len(columns)))
        newest = int(columns.times[: rows[-1] + 1].max())
        if safe:
            smaller = applied(log, plan_log_rewrites(entity, [log], safe))
            rewritten += smaller is not log
            log, label_log = smaller, applied(label_log, plan_label_rewrites(entity, [label_log], safe))
        log += records[rows].tobytes()
        known = (labels["known"] <= newest) & (labels["known"] > (safe or 0))
        label_log += labels[known].tobytes()
        largest = max(largest, len(log))
        if (first // BATCH) % 40 == 39:
            batch = columns.take(rows)
            slots = np.zeros(len(rows), np.int64)
            everything = labels[labels["known"] <= newest].tobytes()
            kept = EntityLogs(entity, ["c"], slots, [log], [label_log]).state()
            raw = EntityLogs(entity, ["c"], slots, [records[: rows[-1] + 1].tobytes()], [everything]).state()
            np.testing.assert_array_equal(feature_vectors(plan, batch, [kept]), feature_vectors(plan, batch, [raw]))
        safe = newest
    per_day = len(columns) / DAYS * entity.event_record.itemsize
    # What a key always keeps, and a third of a log that may gather before it is worth a rewrite.
    recent = (entity.lateness + 2 * HOP) / DAY * per_day + (BATCH + SLACK_RECORDS) * entity.event_record.itemsize
    assert largest < (entity.coarse_bound + recent) * 1.5
    assert largest < entity.retention / DAY * per_day / 2, "less than half of what raw records of the windows take"
    assert 0 < rewritten < len(columns) / BATCH
    assert len(label_log) < len(labels) * LABEL_RECORD.itemsize / 10
    assert plan_deletions(entity.event_record, [log], safe - entity.retention) == []
    assert len(plan_deletions(entity.event_record, [log], safe + HOUR)) == 1


def test_few_events_are_not_merged_in_vain() -> None:
    """One event per hop would take more room as a bucket: the log stays as it is."""
    columns = history(60, 1)
    log = entity.event_records(columns, hash_ids(columns.ids)).tobytes()
    assert plan_log_rewrites(entity, [log], int(columns.times.max())) == []
