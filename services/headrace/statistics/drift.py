"""Drift of one quantity: fixed bins, population stability index, chi-square test, false-discovery control."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BINS = 10
"""Quantile bins asked for; ties make fewer or more of it."""

LEAST_EXPECTED = 5.0
"""Neighbouring bins are merged until this many rows are expected in each: below it the chi-square test misleads."""


@dataclass(frozen=True, eq=False)
class Bins:
    """Fixed bins of one quantity.

    Attributes:
        edges: float64 (e,), strictly rising. A finite value x lies in bin i when i edges are below it, so a value that
            equals an edge belongs to the bin under that edge. NaN and infinities share the last bin, e + 1.
    """

    edges: FloatArray

    @classmethod
    def of_reference(cls, values: FloatArray, bins: int = BINS) -> Bins:
        """Bins of about equal shares of the reference.

        A value that makes up at least 1 / `bins` of the reference has a bin of its own, and so has every value when
        there are at most `bins` different ones: constant, binary and heavily tied features are compared value by value,
        with room for values never seen before between and around them. Quantiles divide the rest.

        Parameters
        ----------
        values
            The reference, float64 (n,).
        bins
            Bins asked for, at least 2.
        """
        finite = values[np.isfinite(values)]
        if not len(finite):
            return cls(np.empty(0))
        unique, counts = np.unique(finite, return_counts=True)
        if len(unique) <= bins:
            own, rest = unique, np.empty(0)
        else:
            heavy = counts * bins >= len(finite)
            own, rest = unique[heavy], np.repeat(unique[~heavy], counts[~heavy])
        # Nothing finite lies below the least number, so that has no edge under it.
        lowest = np.finfo(np.float64).min
        edges = [own, np.nextafter(own[own > lowest], -np.inf)]
        if len(rest):
            parts = max(1, round(bins * len(rest) / len(finite)))
            edges.append(rest[np.arange(1, parts) * len(rest) // parts])
        return cls(np.unique(np.concatenate(edges)))

    def counts(self, values: FloatArray) -> IntArray:
        """Rows in each bin.

        Parameters
        ----------
        values
            float64 (n,).

        Returns
        -------
        int64 (e + 2,); the last is the count of values that are not finite.
        """
        finite = np.isfinite(values)
        places = np.searchsorted(self.edges, values[finite], side="left")
        counts = np.bincount(places, minlength=len(self.edges) + 2)
        counts[-1] = len(values) - len(places)
        return counts.astype(np.int64)


@dataclass(frozen=True)
class Comparison:
    """Two histograms on the same bins compared.

    Attributes:
        psi: population stability index, the sum of (p - q) ln(p / q) over the bins; 0 for equal shares. By convention
            below 0.1 is stable and above 0.25 a large shift.
        p_value: of the chi-square test that both come from one distribution, taking rows as independent.
    """

    psi: float
    p_value: float


def compare(reference: IntArray, current: IntArray) -> Comparison:
    """Compare counts on the same bins.

    Neighbouring bins are merged first, until each would hold at least five rows of the smaller side if both came from
    one distribution. Half a row is added to each merged bin for the index, so that an empty bin is finite.

    Parameters
    ----------
    reference, current
        Counts, int64 (b,).

    Returns
    -------
    psi 0 and p_value 1 when a side is empty or all rows share one merged bin.
    """
    total_reference, total_current = int(reference.sum()), int(current.sum())
    if not total_reference or not total_current:
        return Comparison(0.0, 1.0)
    pooled = reference + current
    smaller_share = min(total_reference, total_current) / (total_reference + total_current)
    starts = _merge_sparse(np.asarray(pooled * smaller_share, dtype=np.float64))
    if len(starts) < 2:
        return Comparison(0.0, 1.0)
    reference, current, pooled = (np.add.reduceat(side, starts) for side in (reference, current, pooled))
    expected = pooled * (total_current / (total_reference + total_current))
    # Both rows of the 2 x b table deviate by the same amount, so one sum holds them.
    statistic = float((((current - expected) ** 2) / expected).sum()) * (1 + total_current / total_reference)
    q = (reference + 0.5) / (total_reference + 0.5 * len(starts))
    p = (current + 0.5) / (total_current + 0.5 * len(starts))
    psi = float(((p - q) * np.log(p / q)).sum())
    return Comparison(psi, float(gammaincc((len(starts) - 1) / 2, statistic / 2)))


def significant(p_values: FloatArray, rate: float) -> NDArray[np.bool_]:
    """Which hypotheses are rejected when the expected share of false rejections is at most `rate`.

    Parameters
    ----------
    p_values
        float64 (n,).
    rate
        False discovery rate, 0 to 1.

    Source: Benjamini and Hochberg, 1995, "Controlling the false discovery rate".
    """
    order = np.argsort(p_values, kind="stable")
    passed = np.nonzero(p_values[order] <= rate * np.arange(1, len(p_values) + 1) / max(1, len(p_values)))[0]
    rejected = np.zeros(len(p_values), dtype=np.bool_)
    if len(passed):
        rejected[order[: passed[-1] + 1]] = True
    return rejected


def _merge_sparse(expected: FloatArray) -> IntArray:
    """First bins of the merged groups: each group expects enough rows; a remainder joins the last group."""
    starts: list[int] = []
    begin, held = 0, 0.0
    for place, rows in enumerate(expected.tolist()):
        held += rows
        if held >= LEAST_EXPECTED:
            starts.append(begin)
            begin, held = place + 1, 0.0
    return np.asarray(starts or [0], dtype=np.int64)
