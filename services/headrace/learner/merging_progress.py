"""What several learners read and learned of their shares, as one snapshot. Pure."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.learner.learning import RECENT_ROWS
from headrace.learner.merging import Share, merge
from headrace.learner.recipes import Recipe
from headrace.learner.snapshot import Progress, Snapshot

METRICS_WINDOW = 2000


def merge_snapshots(recipe: Recipe, base: Snapshot, shards: Sequence[Snapshot], next_command: int) -> Snapshot:
    """The snapshots of learners that began from one version, as one; the recipe is put into its state.

    Args:
        recipe: of a model that can be merged; its own state is lost.
        base: of the version they began from.
        shards: theirs, in the order of their numbers; each read other partitions.
        next_command: offset in `control` of the first command that is not handled.

    Raises:
        SnapshotError: a state does not fit the recipe.
    """
    learned = [one.progress.learned_count - base.progress.learned_count for one in shards]
    merge(
        recipe,
        base.model,
        [Share(one.model, count) for one, count in zip(shards, learned, strict=True)],
        base.feature_names,
    )
    return replace(
        base,
        model=recipe.state(),
        progress=_merge_progress(base.progress, [one.progress for one in shards], next_command),
        metrics=_merge_metrics(base.metrics, [one.metrics for one in shards]),
        recent=_merge_recent(base, shards, learned),
    )


def _merge_progress(base: Progress, shards: Sequence[Progress], next_command: int) -> Progress:
    ignored = Counter(dict(base.ignored))
    for one in shards:
        ignored.update({reason: count - dict(base.ignored).get(reason, 0) for reason, count in one.ignored})
    last = max((one.last_label_time_us, one.last_event_id) for one in (base, *shards))
    return Progress(
        first_offsets=base.first_offsets,
        next_offsets=tuple(map(max, base.next_offsets, *(one.next_offsets for one in shards))),
        learned_count=base.learned_count + sum(one.learned_count - base.learned_count for one in shards),
        ignored=tuple(sorted(ignored.items())),
        last_label_time_us=last[0],
        last_event_id=last[1],
        model_time_us=max(one.model_time_us for one in (base, *shards)),
        append_time_us=max(one.append_time_us for one in (base, *shards)),
        next_command=next_command,
    )


def _merge_metrics(base: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over all outcomes; of the newest ones that the rolling metrics cover, each shard gives its part."""
    merged = dict(base)
    for name, begun in base.items():
        if isinstance(begun, int | float):
            merged[name] = begun + sum(one[name] - begun for one in shards)
    added = [int(one["count"]) - int(base["count"]) for one in shards]
    for name in ("scores", "labels"):
        parts = []
        # All of these have as many entries as there are scores, of 8 bytes each.
        for state, count in zip((base, *shards), (METRICS_WINDOW, *_parts(added, METRICS_WINDOW)), strict=True):
            content, entries = base64.b64decode(state[name]), len(base64.b64decode(state["scores"])) // 8
            size = len(content) // entries if entries else 0
            parts.append(content[len(content) - min(count, entries) * size :])
            width = size or 1
        joined = b"".join(parts)
        merged[name] = base64.b64encode(joined[-METRICS_WINDOW * width :]).decode()
    return merged


def _merge_recent(base: Snapshot, shards: Sequence[Snapshot], learned: Sequence[int]) -> NDArray[np.float32]:
    parts = [base.recent]
    for one, count in zip(shards, _parts(learned, RECENT_ROWS), strict=True):
        parts.append(one.recent[len(one.recent) - min(count, len(one.recent)) :])
    return np.concatenate(parts)[-RECENT_ROWS:]


def _parts(counts: Sequence[int], room: int) -> list[int]:
    """How many of the newest each gives: all, or in proportion where there is no room for all."""
    total = sum(counts)
    return [count if total <= room else count * room // total for count in counts]
