"""Drift of every feature and of the score, season by season."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.statistics.drift import Comparison, FloatArray, IntArray, significant
from headrace.statistics.references import FixedReference, MovingReference, Reference, Stored

SCORE = "score"

SCORE_THRESHOLD_FACTOR = 5.0
SCORE_UNREST_FACTOR = 2.0
"""A model that learns moves its own scores, so the score must differ more than a feature before it has drifted.

Measured on the score of an online logistic regression, seasons of a day against the seven before: the index reached .34
on simulated payments (1,700 a day, five seeds) and .11 on the handbook's (9,600 a day, 138 days). It stayed below half
of what these factors allow with a threshold of .1, except where the seven days differed as much among themselves.
"""


@dataclass(frozen=True)
class SubjectDrift:
    """One subject in one season.

    Attributes:
        subject: name of the feature, or "score".
        psi: population stability index against the reference.
        p_value: of the chi-square test.
        threshold: the index above which it counts: the declared one, or what the reference shows within itself.
        drifted: above the threshold and significant among all subjects of the season.
    """

    subject: str
    psi: float
    p_value: float
    threshold: float
    drifted: bool


class DriftWatch:
    """Compares seasons, given in order, with a reference of each subject.

    A feature's reference begins with the first whole season after the feature has warmed up, that is when its longest
    window has filled since the stream began; the score's when all features have. The first `reference_seasons` from
    there are compared with nothing.

    Args:
        names: features in the order of the columns.
        warm_up: for each feature how long after the stream began it is full, in microseconds of event time.
        season: length of a season in microseconds; seasons are counted from 1970-01-01 UTC.
        reference_seasons: how many make a reference.
        psi_threshold: least index that counts as drift.
        false_discovery_rate: of the tests over all subjects of a season.
        min_rows: rows that a season needs before a subject can be found to have drifted.
        stored: references of features kept from before, by name.
        began_us: when the stream began, in microseconds since 1970-01-01 UTC; None takes the first row that comes.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        warm_up: Sequence[int],
        season: int,
        reference_seasons: int,
        psi_threshold: float,
        false_discovery_rate: float,
        min_rows: int = 0,
        stored: Mapping[str, Stored] | None = None,
        began_us: int | None = None,
    ) -> None:
        self.names = tuple(names)
        self.began_us = began_us
        self._warm_up = (*warm_up, max(warm_up, default=0))
        self._season = season
        self._psi_threshold = psi_threshold
        self._rate = false_discovery_rate
        self._min_rows = min_rows
        kept = stored or {}
        self._references: list[Reference] = [FixedReference(reference_seasons, kept.get(name)) for name in names]
        self._references.append(MovingReference(reference_seasons))
        self._unrest: list[tuple[Stored, float] | None] = [None] * len(self._references)

    def stored(self) -> dict[str, Stored]:
        """The finished references of the features, by name."""
        found = zip(self.names, self._references, strict=False)
        return {name: reference.stored for name, reference in found if reference.stored is not None}

    @property
    def full_from(self) -> int | None:
        """Number of the first season in which all features are full; None before the first row."""
        return None if self.began_us is None else self._first_season(len(self.names))

    def close(
        self, season: int, times: IntArray, features: FloatArray, score: FloatArray, scored: NDArray[np.bool_]
    ) -> list[SubjectDrift]:
        """Compare one season and take note of it.

        Parameters
        ----------
        season
            Its number: event time in microseconds divided by the length, rounded down. Higher than those before.
        times
            Event times in microseconds, int64 (n,).
        features
            In the order of `names`, float64 (n, k). Not finite means missing and is a value of its own.
        score
            float64 (n,).
        scored
            Rows whose score is to be compared: those of a model that has learned something, bool (n,).

        Returns
        -------
        One entry for each subject that has a reference and rows in this season.
        """
        if not len(times):
            return []
        if self.began_us is None:
            self.began_us = int(times.min())
        compared: list[tuple[int, FloatArray, Comparison | None]] = []
        for column, reference in enumerate(self._references):
            if season < self._first_season(column):
                continue
            values = score[scored] if column == len(self.names) else features[:, column]
            stored = reference.stored
            if len(values) and (stored is None or season > stored.last_season):
                compared.append((column, values, stored.compare(values) if stored is not None else None))
        tested = [(column, comparison) for column, _, comparison in compared if comparison is not None]
        rejected = significant(np.array([comparison.p_value for _, comparison in tested]), self._rate)
        found: dict[int, SubjectDrift] = {}
        for (column, comparison), sure in zip(tested, rejected.tolist(), strict=True):
            threshold = self._threshold(column)
            found[column] = SubjectDrift(
                self.names[column] if column < len(self.names) else SCORE,
                comparison.psi,
                comparison.p_value,
                threshold,
                sure and comparison.psi > threshold and len(times) >= self._min_rows,
            )
        for column, values, _ in compared:
            self._references[column].take(season, values, column in found and found[column].drifted)
        return list(found.values())

    def _first_season(self, column: int) -> int:
        """Number of the first season that a subject's reference may hold."""
        assert self.began_us is not None
        return -(-(self.began_us + self._warm_up[column]) // self._season)

    def _threshold(self, column: int) -> float:
        """The index above which a subject has drifted; the unrest is computed once for each reference."""
        stored = self._references[column].stored
        assert stored is not None
        known = self._unrest[column]
        if known is None or known[0] is not stored:
            known = self._unrest[column] = (stored, stored.unrest())
        if column == len(self.names):
            return max(SCORE_THRESHOLD_FACTOR * self._psi_threshold, SCORE_UNREST_FACTOR * known[1])
        return max(self._psi_threshold, known[1])


@dataclass(frozen=True, eq=False)
class DriftTable:
    """Drift of every subject in every season.

    Attributes:
        begins_us: begin of each season that has rows, in microseconds since 1970-01-01 UTC, int64 (s,).
        subjects: the features in order, then "score".
        psi: float64 (s, subjects); NaN while a subject warms up or its reference is gathered.
        threshold: the same shape; NaN likewise.
        drifted: bool, the same shape.
    """

    begins_us: IntArray
    subjects: tuple[str, ...]
    psi: FloatArray
    threshold: FloatArray
    drifted: NDArray[np.bool_]


def drift_by_season(
    times: IntArray,
    features: FloatArray,
    score: FloatArray,
    names: Sequence[str],
    *,
    warm_up: Sequence[int],
    season: int,
    reference_seasons: int = 7,
    psi_threshold: float = 0.1,
    false_discovery_rate: float = 0.01,
    min_rows: int = 0,
    scored: NDArray[np.bool_] | None = None,
) -> DriftTable:
    """Drift over a whole history, as `DriftWatch` sees it.

    The last season is left out: nothing says that it is whole.

    Parameters
    ----------
    times
        Event times in microseconds since 1970-01-01 UTC, int64 (n,), in any order.
    features
        float64 (n, k), in the order of `names`.
    score
        float64 (n,).
    names
        Of the features.
    warm_up, season, reference_seasons, psi_threshold, false_discovery_rate, min_rows
        As in `DriftWatch`.
    scored
        Rows whose model has learned something, bool (n,); all where None.
    """
    watch = DriftWatch(
        names,
        warm_up=warm_up,
        season=season,
        reference_seasons=reference_seasons,
        psi_threshold=psi_threshold,
        false_discovery_rate=false_discovery_rate,
        min_rows=min_rows,
    )
    of_season = times // season
    seasons = np.unique(of_season)[:-1]
    subjects = (*watch.names, SCORE)
    shape = (len(seasons), len(subjects))
    psi, threshold, drifted = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, dtype=np.bool_)
    order = np.argsort(of_season, kind="stable")
    ordered = of_season[order]
    begins, ends = np.searchsorted(ordered, seasons), np.searchsorted(ordered, seasons, side="right")
    trained = np.ones(len(times), dtype=np.bool_) if scored is None else scored
    for place, number in enumerate(seasons.tolist()):
        rows = order[begins[place] : ends[place]]
        for found in watch.close(number, times[rows], features[rows], score[rows], trained[rows]):
            column = subjects.index(found.subject)
            psi[place, column], threshold[place, column] = found.psi, found.threshold
            drifted[place, column] = found.drifted
    return DriftTable(seasons * season, subjects, psi, threshold, drifted)
