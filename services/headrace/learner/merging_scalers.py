"""Merging scalers that learned shares of one stream: what they know is a sum over rows, so the result is exact. Pure.

Counts, means and variances merge by their moments about the common mean (Chan, Golub, LeVeque, 1979, "Updating formulae
and a pairwise algorithm for computing sample variances"), less what all of them had from the state that they began
with; smallest and largest values as they are. Sums are rounded once, so that the order of the shares does not matter to
the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, inf
from typing import Any, NamedTuple

from river import preprocessing

SCALERS = (preprocessing.StandardScaler, preprocessing.MinMaxScaler, preprocessing.MaxAbsScaler)


@dataclass(frozen=True)
class Moments:
    """Of one feature.

    Attributes:
        count: rows.
        mean: their mean.
        variance: their population variance.
    """

    count: int
    mean: float
    variance: float


class Extremes(NamedTuple):
    """Of one feature: its smallest and largest value; inf and -inf of no rows. For a scaler by the largest absolute
    value these are -a and a.
    """

    smallest: float
    largest: float


class Affine(NamedTuple):
    """How one feature is scaled: (x − offset) / scale; 0 where the scale is 0."""

    offset: float
    scale: float


Feature = Moments | Extremes


def merge_moments(base: Moments, shares: Sequence[Moments]) -> Moments:
    """Moments of the rows of the base and of what each share added to them.

    Args:
        base: what every share began with.
        shares: at least one; each covers the rows of the base and its own.
    """
    again = len(shares) - 1  # how often the rows of the base are counted too often
    count = sum(one.count for one in shares) - again * base.count
    if not count:
        return Moments(0, 0.0, 0.0)
    # Differences from a point near all means: what is summed is small, and so is what is lost by rounding.
    near = min(one.mean for one in shares)
    mean = near + (
        fsum([*(one.count * (one.mean - near) for one in shares), -again * base.count * (base.mean - near)]) / count
    )
    squares = fsum(
        [
            *(one.count * (one.variance + (one.mean - mean) ** 2) for one in shares),
            -again * base.count * (base.variance + (base.mean - mean) ** 2),
        ]
    )
    return Moments(count, mean, max(0.0, squares / count))


def merge_features(base: Sequence[Feature], shares: Sequence[Sequence[Feature]]) -> tuple[Feature, ...]:
    """What a scaler knows of each feature, merged.

    Args:
        base: one a feature.
        shares: by share, one a feature.
    """
    merged: list[Feature] = []
    for index, begun in enumerate(base):
        of_shares = [share[index] for share in shares]
        if isinstance(begun, Moments):
            merged.append(merge_moments(begun, [one for one in of_shares if isinstance(one, Moments)]))
        else:
            extremes = [one for one in of_shares if isinstance(one, Extremes)]
            merged.append(Extremes(min(one.smallest for one in extremes), max(one.largest for one in extremes)))
    return tuple(merged)


def read(scaler: Any, names: Sequence[str]) -> tuple[Feature, ...]:
    """What a River scaler knows of each feature.

    Args:
        scaler: one of `SCALERS`.
        names: of the features.
    """
    if type(scaler) is preprocessing.StandardScaler:
        return tuple(
            Moments(
                int(scaler.counts.get(name, 0)),
                float(scaler.means.get(name, 0.0)),
                float(scaler.vars.get(name, 0.0)),
            )
            for name in names
        )
    if type(scaler) is preprocessing.MinMaxScaler:
        return tuple(
            Extremes(float(scaler.min[name].get()), float(scaler.max[name].get()))
            if name in scaler.min
            else Extremes(inf, -inf)
            for name in names
        )
    largest = [float(scaler.abs_max[name].get()) if name in scaler.abs_max else 0.0 for name in names]
    return tuple(Extremes(-one, one) for one in largest)


def write(scaler: Any, names: Sequence[str], features: Sequence[Feature]) -> None:
    """Put a River scaler into a state.

    Args:
        scaler: one of `SCALERS`.
        names: of the features.
        features: what it knows of each.
    """
    for name, one in zip(names, features, strict=True):
        if isinstance(one, Moments):
            scaler.counts[name], scaler.means[name] = one.count, one.mean
            if scaler.with_std:
                scaler.vars[name] = one.variance
        elif type(scaler) is preprocessing.MinMaxScaler:
            scaler.min[name].min, scaler.max[name].max = one.smallest, one.largest
        else:
            scaler.abs_max[name].abs_max = one.largest


def affine(scaler: Any, feature: Feature) -> Affine:
    """How a scaler that knows this scales the feature."""
    if isinstance(feature, Moments):
        return Affine(feature.mean, feature.variance**0.5 if scaler.with_std else 1.0)
    if type(scaler) is preprocessing.MinMaxScaler:
        return Affine(feature.smallest, feature.largest - feature.smallest)
    return Affine(0.0, feature.largest)
