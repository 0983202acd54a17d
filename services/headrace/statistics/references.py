"""What a season is compared with: the first seasons, kept, or the latest ones, moving along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headrace.statistics.drift import Bins, Comparison, FloatArray, IntArray, compare


@dataclass(frozen=True, eq=False)
class Stored:
    """A finished reference.

    Attributes:
        bins: over all its seasons.
        counts: rows of each season in each bin, int64 (s, b).
        last_season: number of its last season; only later ones are compared with it.
    """

    bins: Bins
    counts: IntArray
    last_season: int

    @classmethod
    def of_seasons(cls, seasons: Sequence[FloatArray], last_season: int) -> Stored:
        """Bins over all `seasons`, each float64 (n,), and their counts."""
        bins = Bins.of_reference(np.concatenate(seasons))
        return cls(bins, np.stack([bins.counts(values) for values in seasons]), last_season)

    def compare(self, values: FloatArray) -> Comparison:
        """The whole reference against `values`, float64 (n,)."""
        return compare(self.counts.sum(axis=0), self.bins.counts(values))

    def unrest(self) -> float:
        """The largest index of one season of the reference against its others.

        A feature that follows the calendar, or moves slowly, differs from season to season without drifting. A season
        has drifted only where it differs more than the reference does within itself. 0 with a single season.
        """
        if len(self.counts) < 2:
            return 0.0
        total = self.counts.sum(axis=0)
        return max(compare(total - season, season).psi for season in self.counts)


class Reference(Protocol):
    """What the values of one subject are compared with."""

    @property
    def stored(self) -> Stored | None:
        """The reference, or None while it is gathered."""

    def take(self, season: int, values: FloatArray, violated: bool) -> None:
        """Take note of a season's values, float64 (n,), after they were compared."""


class FixedReference:
    """The first seasons, for good. For quantities that should not change at all: the features.

    Args:
        seasons: how many make the reference.
        stored: a reference kept from before, which ends the gathering.
    """

    def __init__(self, seasons: int, stored: Stored | None = None) -> None:
        self._wanted = seasons
        self._gathered: list[FloatArray] = []
        self._stored = stored

    @property
    def stored(self) -> Stored | None:
        """The reference, or None while it is gathered."""
        return self._stored

    def take(self, season: int, values: FloatArray, violated: bool) -> None:
        """Gather `values` until there are enough seasons."""
        if self._stored is None:
            self._gathered.append(values)
            if len(self._gathered) == self._wanted:
                self._stored = Stored.of_seasons(self._gathered, season)
                self._gathered = []


class MovingReference:
    """The latest seasons that were fine. For the score, whose model goes on learning: a slow change is its work.

    A season in violation is not taken in, so the alert holds while the change does. When as many seasons in a row as
    make a reference were in violation, they are the new level and become the reference.

    Args:
        seasons: how many make the reference.
    """

    def __init__(self, seasons: int) -> None:
        self._wanted = seasons
        self._fine: list[FloatArray] = []
        self._violating: list[FloatArray] = []
        self._stored: Stored | None = None

    @property
    def stored(self) -> Stored | None:
        """The reference, or None while it is gathered."""
        return self._stored

    def take(self, season: int, values: FloatArray, violated: bool) -> None:
        """Move along, or set `values` aside when they are in violation."""
        if violated:
            self._violating.append(values)
            if len(self._violating) < self._wanted:
                return
            self._fine, self._violating = self._violating, []
        else:
            self._violating = []
            self._fine = [*self._fine, values][-self._wanted :]
        if len(self._fine) == self._wanted:
            self._stored = Stored.of_seasons(self._fine, season)
