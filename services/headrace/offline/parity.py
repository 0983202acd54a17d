"""Compares vectors that were served with their recomputation, feature by feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.pipeline.events import FloatArray


@dataclass(frozen=True)
class FeatureParity:
    """How one feature compares.

    Attributes:
        name: of the feature.
        rows_different: vectors in which it differs.
        max_abs_error: largest difference; infinite where one is a number and the other is not.
    """

    name: str
    rows_different: int
    max_abs_error: float


@dataclass(frozen=True)
class Parity:
    """How served vectors compare with their recomputation.

    Attributes:
        rows_compared: vectors compared.
        rows_different: those in which a feature differs by more than the tolerance.
        max_abs_error: largest difference of all.
        features: the same by feature, in order.
        different: row of each that differs.
    """

    rows_compared: int
    rows_different: int
    max_abs_error: float
    features: tuple[FeatureParity, ...]
    different: npt.NDArray[np.intp]


def compare_vectors(
    names: tuple[str, ...],
    served: FloatArray,
    recomputed: FloatArray,
    *,
    left_out: npt.NDArray[np.bool_] | None = None,
    tolerance: float = 0.0,
) -> Parity:
    """Compare n vectors.

    Args:
        names: of the features.
        served: what was served, shape (n, features).
        recomputed: what should have been, shape (n, features).
        left_out: features that are not to be compared, shape (n, features): ones that the caller set.
        tolerance: largest difference that counts as none.
    """
    with np.errstate(invalid="ignore"):
        error = np.abs(served - recomputed)
    error[(served == recomputed) | (np.isnan(served) & np.isnan(recomputed))] = 0.0
    error[np.isnan(error)] = np.inf
    if left_out is not None:
        error[left_out] = 0.0
    wrong = error > tolerance
    features = tuple(
        FeatureParity(name, int(wrong[:, column].sum()), float(error[:, column].max(initial=0.0)))
        for column, name in enumerate(names)
    )
    different = np.flatnonzero(wrong.any(axis=1))
    return Parity(len(served), len(different), float(error.max(initial=0.0)), features, different)
