"""Compares vectors that were served with their recomputation, feature by feature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.pipeline import Derived, FeatureView, Pipeline
from headrace.pipeline.aggregations.operations import OPERATIONS
from headrace.pipeline.events import FloatArray

DERIVED = 1e-9
"""How far a feature that is derived from others may differ where one of these may."""


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
        rows_different: those in which a feature differs by more than it may.
        max_abs_error: largest difference of all.
        features: the same by feature, in order.
        different: row of each that differs.
    """

    rows_compared: int
    rows_different: int
    max_abs_error: float
    features: tuple[FeatureParity, ...]
    different: npt.NDArray[np.intp]


def tolerances(pipeline: Pipeline) -> FloatArray:
    """How far two evaluations of each feature may differ, as a share of its value (of 1 where that is less), shape
    (features,): 0 but for what weighs by age or is estimated, and for what is derived from other features.
    """
    found: list[float] = []
    for part in pipeline.features:
        if isinstance(part, FeatureView):
            found += [OPERATIONS[aggregation.operation].tolerance for aggregation in part.aggregations]
        else:
            found += [0.0] * len(part.names)
    if max(found) > 0:
        derived = {name for part in pipeline.features if isinstance(part, Derived) for name in part.names}
        found = [DERIVED if name in derived else one for name, one in zip(pipeline.feature_names, found, strict=True)]
    return np.array(found)


def compare_vectors(
    pipeline: Pipeline,
    served: FloatArray,
    recomputed: FloatArray,
    *,
    left_out: npt.NDArray[np.bool_] | None = None,
    tolerance: float = 0.0,
) -> Parity:
    """Compare n vectors.

    Args:
        pipeline: names the features, and how far two evaluations of each may differ.
        served: what was served, shape (n, features).
        recomputed: what should have been, shape (n, features).
        left_out: features that are not to be compared, shape (n, features): ones that the caller set.
        tolerance: largest difference that counts as none, beside what the features may differ by anyway.
    """
    with np.errstate(invalid="ignore"):
        error = np.abs(served - recomputed)
    error[(served == recomputed) | (np.isnan(served) & np.isnan(recomputed))] = 0.0
    error[np.isnan(error)] = np.inf
    if left_out is not None:
        error[left_out] = 0.0
    size = np.where(np.isfinite(recomputed), np.maximum(1.0, np.abs(recomputed)), 1.0)
    wrong = error > np.maximum(tolerances(pipeline) * size, tolerance)
    features = tuple(
        FeatureParity(name, int(wrong[:, column].sum()), float(error[:, column].max(initial=0.0)))
        for column, name in enumerate(pipeline.feature_names)
    )
    different = np.flatnonzero(wrong.any(axis=1))
    return Parity(len(served), len(different), float(error.max(initial=0.0)), features, different)
