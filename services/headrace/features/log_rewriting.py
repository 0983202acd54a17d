"""Trims the logs that a batch has read: what no window will reach any more leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.features.metrics import REWRITTEN_LOGS
from headrace.features.state_writer import REWRITTEN, StateWriter
from headrace.features.trimming import Rewrite, plan_rewrites, safe_time
from headrace.pipeline.state import LABEL_RECORD
from headrace.platform.feature_state import StateKeys, StateSnapshot


async def trim_logs(
    writer: StateWriter, keys: StateKeys, snapshot: StateSnapshot, sources: Mapping[str, str]
) -> tuple[list[list[int]], int]:
    """Rewrite logs with many expired records.

    Args:
        writer: writes the state.
        keys: names.
        snapshot: the logs.
        sources: what is stored beside the fences, by source partition.

    Returns:
        Length of every event log after it, by entity and slot; and how many logs were ever rewritten.
    """
    safe = safe_time(sources)
    lengths = [[len(log) for log in logs.events] for logs in snapshot.entities]
    rewritten = int(sources.get(REWRITTEN, 0))
    if not safe:
        return lengths, rewritten
    for of_entity, logs in zip(lengths, snapshot.entities, strict=True):
        horizon = safe - logs.plan.retention
        rewrites = plan_rewrites(logs.plan, logs.plan.event_record, logs.events, horizon)
        event_log, label_log = keys.event_log(logs.plan.entity), keys.label_log(logs.plan.entity)
        rewritten += await _rewrite(writer, [event_log + text for text in logs.ids], rewrites)
        for rewrite in rewrites:
            of_entity[rewrite.slot] = len(rewrite.content)
        of_labels = plan_rewrites(logs.plan, LABEL_RECORD, logs.labels, horizon)
        rewritten += await _rewrite(writer, [label_log + text for text in logs.ids], of_labels)
    return lengths, rewritten


async def _rewrite(writer: StateWriter, names: Sequence[str], rewrites: Sequence[Rewrite]) -> int:
    done = await writer.rewrite(names, rewrites)
    REWRITTEN_LOGS.inc(done)
    return done
