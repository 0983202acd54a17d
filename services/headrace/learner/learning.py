"""The learning itself: outcomes in, model and progress out. Pure; what reads and writes is elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headrace.learner.errors import RecipeChangedError, SnapshotError
from headrace.learner.examples import CORRECTION, NOT_FINITE, Example
from headrace.learner.order_log import OrderLog
from headrace.learner.prequential import Labels, PrequentialMetrics
from headrace.learner.recipes import Recipe
from headrace.learner.snapshot import Progress, Snapshot
from headrace.v1.model_pb2 import Artifact

RECENT_ROWS = 256


class Learning:
    """A model, what it has learned, and in which order since the last version.

    Args:
        recipe: the model; learned in place.
        feature_names: in model order.
        features_fingerprint: of the pipeline.
        first_offsets: by partition of `outcomes`, where reading begins.
    """

    def __init__(
        self,
        recipe: Recipe,
        feature_names: Sequence[str],
        features_fingerprint: int,
        first_offsets: Sequence[int],
    ) -> None:
        self.recipe = recipe
        self.feature_names = tuple(feature_names)
        self.features_fingerprint = features_fingerprint
        self.metrics = PrequentialMetrics(kind=recipe.score_kind)
        self.ignored: Counter[str] = Counter()
        self.recent: NDArray[np.float32] = np.empty((0, len(self.feature_names)), np.float32)
        self.next_command = 0
        self._first = tuple(first_offsets)
        self._next = list(first_offsets)
        self._learned_count = 0
        self._last = (0, "")
        self._model_time_us = 0
        self._append_time_us = 0
        self._order: list[tuple[int, int]] = []

    @classmethod
    def restore(cls, recipe: Recipe, snapshot: Snapshot, features_fingerprint: int) -> Self:
        """The learning as it was when the snapshot was taken.

        Args:
            recipe: a fresh model of the same recipe.
            snapshot: verified and decoded.
            features_fingerprint: of the pipeline.

        Raises:
            RecipeChangedError: the snapshot is of another recipe or of other features.
            SnapshotError: the snapshot does not fit itself.
        """
        if snapshot.recipe_fingerprint != recipe.fingerprint:
            raise RecipeChangedError(
                f"version {snapshot.version} was made by recipe {snapshot.recipe_fingerprint[:16]}, the pipeline "
                f"declares {recipe.fingerprint[:16]}: declare the former model again and this one as a challenger, "
                "or use a new namespace"
            )
        if snapshot.features_fingerprint != features_fingerprint:
            raise RecipeChangedError(
                f"version {snapshot.version} takes features {snapshot.features_fingerprint:016x}, the pipeline "
                f"declares {features_fingerprint:016x}: declare the former features again, or use a new namespace"
            )
        progress = snapshot.progress
        if len(progress.first_offsets) != len(progress.next_offsets):
            raise SnapshotError(f"snapshot of {snapshot.version}: offsets of a different number of partitions")
        learning = cls(recipe, snapshot.feature_names, features_fingerprint, progress.first_offsets)
        recipe.restore(snapshot.model)
        learning.metrics.restore(snapshot.metrics)
        learning.ignored.update(dict(progress.ignored))
        learning.recent = snapshot.recent
        learning.next_command = progress.next_command
        learning._next = list(progress.next_offsets)
        learning._learned_count = progress.learned_count
        learning._last = (progress.last_label_time_us, progress.last_event_id)
        learning._model_time_us = progress.model_time_us
        learning._append_time_us = progress.append_time_us
        return learning

    @property
    def learned_count(self) -> int:
        """Outcomes learned since the beginning."""
        return self._learned_count

    @property
    def learned_since_version(self) -> int:
        """Outcomes learned since the last version."""
        return len(self._order)

    @property
    def next_offsets(self) -> tuple[int, ...]:
        """By partition, the first offset that is not read yet."""
        return tuple(self._next)

    def learn(self, examples: Iterable[Example]) -> None:
        """Learn what has arrived, in the order (label time, event id); what is to be ignored is counted.

        Args:
            examples: outcomes that were not given before. Per partition all up to the highest offset.
        """
        taken = []
        for example in examples:
            if example.ignored:
                self.ignored[example.ignored] += 1
            elif example.replaced is not None and self._first[example.partition]:
                # What it takes back may lie before the first outcome that was read.
                self.ignored[CORRECTION] += 1
            else:
                taken.append(example)
            self._next[example.partition] = max(self._next[example.partition], example.offset + 1)
        if not taken:
            return
        # Event ids are unique within `outcomes`; the position only makes the order total.
        taken.sort(key=itemgetter(0, 1, 2, 3))
        rows = [example.row for example in taken]
        labels = [example.label for example in taken]
        replaced = [example.replaced for example in taken] if self.recipe.reverses else None
        ids = [example.event_id for example in taken]
        scores = self.recipe.learn(rows, labels, self.feature_names, ids, replaced)
        self._measure(scores, labels, replaced)
        self.recent = np.concatenate([self.recent, np.array(rows[-RECENT_ROWS:], np.float32)])[-RECENT_ROWS:]
        self._order.extend((example.partition, example.offset) for example in taken)
        self._learned_count += len(taken)
        self._last = (taken[-1].label_time_us, taken[-1].event_id)
        self._model_time_us = max(self._model_time_us, self._last[0])
        self._append_time_us = max(self._append_time_us, *(example.append_time_us for example in taken))

    def learn_history(
        self,
        rows: NDArray[np.float32],
        labels: NDArray[np.bool_] | NDArray[np.float64],
        event_ids: Sequence[str],
        label_times_us: NDArray[np.int64],
    ) -> None:
        """Learn events from before the pipeline went live; they are in no order log.

        Args:
            rows: features, float32 [n, features].
            labels: bool [n], or float64 where labels are numbers.
            event_ids: n.
            label_times_us: int64 [n]; rows are in the order (label time, event id).
        """
        fine = np.isfinite(rows) | (np.isnan(rows) if self.recipe.knows_absence else False)
        taken = np.flatnonzero(fine.all(axis=1))
        if len(taken) < len(rows):
            self.ignored[NOT_FINITE] += len(rows) - len(taken)
        if not len(taken):
            return
        ids = [event_ids[index] for index in taken.tolist()]
        scores = self.recipe.learn(rows[taken].tolist(), labels[taken].tolist(), self.feature_names, ids)
        self.metrics.add(scores, labels[taken])
        self.recent = np.concatenate([self.recent, rows[taken][-RECENT_ROWS:]])[-RECENT_ROWS:]
        self._learned_count += len(taken)
        self._last = (int(label_times_us[taken[-1]]), ids[-1])
        self._model_time_us = max(self._model_time_us, self._last[0])

    def _measure(
        self, scores: NDArray[np.float64], labels: Sequence[float], replaced: Sequence[float | None] | None
    ) -> None:
        truth: Labels = np.array(labels, np.float64) if self.recipe.numeric else np.array(labels, np.bool_)
        if replaced is not None:
            # An event counts once, with its first label: before a correction its score is no test any more.
            first = np.array([one is None for one in replaced], np.bool_)
            scores, truth = scores[first], truth[first]
        self.metrics.add(scores, truth)

    def advance(self, next_offsets: Sequence[int]) -> None:
        """Note that everything below these offsets was read: behind the last outcome lie records that are none."""
        self._next = [max(known, given) for known, given in zip(self._next, next_offsets, strict=True)]

    def progress(self) -> Progress:
        """What was read and learned so far."""
        return Progress(
            first_offsets=self._first,
            next_offsets=tuple(self._next),
            learned_count=self._learned_count,
            ignored=tuple(sorted(self.ignored.items())),
            last_label_time_us=self._last[0],
            last_event_id=self._last[1],
            model_time_us=self._model_time_us,
            append_time_us=self._append_time_us,
            next_command=self.next_command,
        )

    def snapshot(self, version: str, parent: str) -> Snapshot:
        """The state as a version.

        Raises:
            ModelDivergedError: a weight is not finite.
        """
        return Snapshot(
            version=version,
            parent=parent,
            recipe_fingerprint=self.recipe.fingerprint,
            features_fingerprint=self.features_fingerprint,
            feature_names=self.feature_names,
            progress=self.progress(),
            model=self.recipe.state(),
            metrics=self.metrics.state(),
            recent=self.recent,
        )

    def recipe_metrics(self) -> dict[str, float]:
        """What the recipe did beside learning, for the announcement: how often the model began anew."""
        return {"drift_resets": float(self.recipe.resets)} if self.recipe.resets else {}

    def order(self, version: str, parent: str, parent_order: Artifact | None) -> OrderLog:
        """The order taken since the last version."""
        positions: Any = np.array(self._order, np.int64).reshape(-1, 2)
        return OrderLog(version, parent, parent_order, positions[:, 0].astype(np.int32), positions[:, 1].copy())

    def version_announced(self, learned: int) -> None:
        """Begin a new order log.

        Args:
            learned: outcomes learned since the last version that belong to the one announced; what was learned while
                it was made belongs to the next.
        """
        del self._order[:learned]
