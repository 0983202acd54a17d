"""Trims the logs that a batch has read: what no window will reach any more leaves them, old hops are merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.features.metrics import REWRITTEN_LOGS
from headrace.features.state_writer import REWRITTEN, StateWriter
from headrace.features.trimming import Rewrite, plan_label_rewrites, plan_log_rewrites, safe_time
from headrace.platform.feature_state import StateKeys, StateSnapshot


@dataclass(frozen=True)
class TrimmedLogs:
    """What was rewritten.

    Attributes:
        events: rewrites of event logs, by entity.
        rewritten: how many logs were ever rewritten.
    """

    events: Sequence[Sequence[Rewrite]]
    rewritten: int


async def trim_logs(
    writer: StateWriter, keys: StateKeys, snapshot: StateSnapshot, sources: Mapping[str, str]
) -> TrimmedLogs:
    """Rewrite logs with many expired records.

    Args:
        writer: writes the state.
        keys: names.
        snapshot: the logs.
        sources: what is stored beside the fences, by source partition.
    """
    safe = safe_time(sources)
    rewritten = int(sources.get(REWRITTEN, 0))
    events: list[list[Rewrite]] = []
    for logs in snapshot.entities if safe else ():
        rewrites = plan_log_rewrites(logs.plan, logs.events, safe)
        rewritten += await _rewrite(writer, keys.event_log(logs.plan.entity), logs.ids, rewrites, safe)
        events.append(rewrites)
        of_labels = plan_label_rewrites(logs.plan, logs.labels, safe)
        rewritten += await _rewrite(writer, keys.label_log(logs.plan.entity), logs.ids, of_labels, safe)
    return TrimmedLogs(events, rewritten)


async def _rewrite(
    writer: StateWriter, prefix: str, ids: Sequence[str], rewrites: Sequence[Rewrite], safe: int
) -> int:
    done = await writer.rewrite([prefix + text for text in ids] if rewrites else [], rewrites, safe)
    REWRITTEN_LOGS.inc(done)
    return done
