"""Rows that a version gave no finite score for: they are refused, so nothing on the log tells of them."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

ROWS_KEPT = 16
VERSIONS_KEPT = 4
KEPT_S = 60.0


class UnscoredRows:
    """The newest such rows of each version, for a minute.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows: OrderedDict[str, tuple[float, npt.NDArray[np.float32]]] = OrderedDict()

    def add(self, version: str, features: npt.NDArray[np.float32]) -> None:
        """Take note of rows.

        Args:
            version: that gave no score for them.
            features: float32, rows x features.
        """
        self._rows[version] = self._clock(), features[-ROWS_KEPT:].copy()
        self._rows.move_to_end(version)
        while len(self._rows) > VERSIONS_KEPT:
            self._rows.popitem(last=False)

    def by_version(self) -> dict[str, list[list[float]]]:
        """The rows of the last minute, by version."""
        oldest = self._clock() - KEPT_S
        return {version: rows.tolist() for version, (at, rows) in self._rows.items() if at >= oldest}
