"""What a backfill needs of a history that lies outside the topics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from headrace.pipeline.events import EventColumns
from headrace.pipeline.state import Records


class History(Protocol):
    """Events with their labels, in blocks of rows. It travels between processes."""

    @property
    def identity(self) -> str:
        """Tells this history from others, and from itself after a change."""

    @property
    def rows(self) -> int:
        """Number of events."""

    def blocks(self, start: int, length: int) -> Iterator[tuple[int, EventColumns, npt.NDArray[np.intp], Records]]:
        """The events from row `start` on.

        Args:
            start: the first row.
            length: most rows of a block.

        Yields:
            Number of the first row; n events; for each of k labels the event of the block that it belongs to,
            ascending, shape (k,); and what the labels add to the label logs, shape (k,).
        """
