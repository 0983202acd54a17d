"""Trims the logs that a batch has read: what no window will reach any more leaves them, old hops are merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.features.metrics import REWRITTEN_LOGS
from headrace.features.state_writer import StateWriter
from headrace.features.trimming import Rewrite, plan_label_rewrites, plan_log_rewrites, safe_time
from headrace.platform.feature_state import REWRITTEN, StateKeys, StateSnapshot

TURNS = 8
"""A log that is written to often is looked at in one batch of so many: looking at all costs more than what it saves."""


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
    writer: StateWriter, keys: StateKeys, snapshot: StateSnapshot, sources: Mapping[str, str], turn: int = -1
) -> TrimmedLogs:
    """Rewrite logs with many expired records.

    Args:
        writer: writes the state.
        keys: names.
        snapshot: the logs.
        sources: what is stored beside the fences, by source partition.
        turn: number of the batch, to look at one log in `TURNS` only; negative to look at all.
    """
    safe = safe_time(sources)
    rewritten = int(sources.get(REWRITTEN, 0))
    events: list[list[Rewrite]] = []
    for logs in snapshot.entities if safe else ():
        rewrites = plan_log_rewrites(logs.plan, _in_turn(logs.events, turn), safe)
        rewritten += await _rewrite(writer, keys.event_log(logs.plan.entity), logs.ids, rewrites, safe)
        events.append(rewrites)
        of_labels = plan_label_rewrites(logs.plan, _in_turn(logs.labels, turn), safe)
        rewritten += await _rewrite(writer, keys.label_log(logs.plan.entity), logs.ids, of_labels, safe)
    return TrimmedLogs(events, rewritten)


def _in_turn(logs: list[bytes], turn: int) -> list[bytes]:
    """The logs to look at now; the others as if they were empty."""
    if turn < 0:
        return logs
    looked_at = [b""] * len(logs)
    looked_at[turn % TURNS :: TURNS] = logs[turn % TURNS :: TURNS]
    return looked_at


async def _rewrite(writer: StateWriter, prefix: str, ids: Sequence[str], rewrites: Sequence[Rewrite], safe: int) -> int:
    done = await writer.rewrite([prefix + text for text in ids] if rewrites else [], rewrites, safe)
    REWRITTEN_LOGS.inc(done)
    return done
