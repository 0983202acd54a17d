"""A history to replay: events in the order of their time, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.pipeline import EventColumns

NO_LABEL = 0


@dataclass(frozen=True)
class Words:
    """What the events of a pipeline are called in a report.

    Attributes:
        events: Plural, such as "payments".
        positives: Events with the label 1, plural, such as "frauds".
    """

    events: str = "events"
    positives: str = "positives"


@dataclass(frozen=True)
class History:
    """n events in the order of their event time; of equal times, in the order of the source.

    Attributes:
        name: What they come from, for the report.
        columns: The events, checked against the schema of the pipeline.
        positive: Whether the label is 1, bool (n,); False where none is published.
        label_time_us: When the label becomes known and is published, int64 (n,), µs since 1970 UTC; `NO_LABEL` where
            it never is, so that the event expires.
        words: What events and positives are called.
        cards: Card of each event, for the handbook's card precision; None where there are no cards.
    """

    name: str
    columns: EventColumns
    positive: npt.NDArray[np.bool_]
    label_time_us: npt.NDArray[np.int64]
    words: Words = Words()
    cards: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def ids(self) -> Sequence[str]:
        """Event ids, n."""
        return self.columns.ids

    @property
    def times(self) -> npt.NDArray[np.int64]:
        """Event times in µs since 1970 UTC, int64 (n,)."""
        return self.columns.times

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Whether a label is published, bool (n,)."""
        return np.not_equal(self.label_time_us, NO_LABEL)

    def in_label_order(self) -> npt.NDArray[np.intp]:
        """The rows with a label, in the order in which labels become known; of equal times, in event order."""
        rows = np.flatnonzero(self.labelled)
        return rows[np.argsort(self.label_time_us[rows], kind="stable")]
