"""What a model version must satisfy before it takes traffic. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.v1 import model_pb2

VERSION = re.compile(r"[A-Za-z0-9_.]{1,64}")


class VersionRefusedError(Exception):
    """A version failed a check and never takes traffic. Trying again gives the same answer.

    Attributes:
        check: name of the check, for example "signature" or "golden_rows".
        value: what was measured; 0 where the check measures nothing.
        threshold: what was allowed; 0 where the check measures nothing.
    """

    def __init__(self, check: str, detail: str, *, value: float = 0, threshold: float = 0) -> None:
        super().__init__(detail)
        self.check = check
        self.value = value
        self.threshold = threshold


@dataclass(frozen=True)
class Expected:
    """What every version of a deployed pipeline has in common.

    Attributes:
        pipeline: deployed pipeline name.
        features_fingerprint: of the pipeline as declared.
        feature_names: in model order.
        numeric: whether scores are numbers, not probabilities.
    """

    pipeline: str
    features_fingerprint: int
    feature_names: tuple[str, ...]
    numeric: bool = False


def check_announcement(model: model_pb2.ModelVersion, expected: Expected) -> None:
    """Compare an announced version with the pipeline, before anything is fetched.

    Raises:
        VersionRefusedError: another pipeline, an unusable version name, another definition of the features, or golden
            rows that do not fit together.
    """
    if not VERSION.fullmatch(model.version):
        raise VersionRefusedError("version", f"version {model.version!r}: letters, digits, '_' and '.', 64 at most")
    if model.pipeline != expected.pipeline:
        raise VersionRefusedError(
            "pipeline", f"version {model.version} is of pipeline {model.pipeline!r}, not {expected.pipeline!r}"
        )
    if model.features_fingerprint != expected.features_fingerprint:
        raise VersionRefusedError(
            "features_fingerprint",
            f"version {model.version} takes features {model.features_fingerprint:016x}; "
            f"the pipeline declares {expected.features_fingerprint:016x}",
        )
    if model.feature_names and tuple(model.feature_names) != expected.feature_names:
        raise VersionRefusedError("feature_names", f"version {model.version} names other features than the pipeline")
    golden = model.golden
    features = len(expected.feature_names)
    if golden.rows < 0 or len(golden.features) != golden.rows * features or len(golden.scores) != golden.rows:
        raise VersionRefusedError(
            "golden_rows",
            f"version {model.version} has {len(golden.features)} golden inputs and {len(golden.scores)} scores "
            f"for {golden.rows} rows of {features} features",
        )
    if not 0 <= golden.tolerance <= 0.01:
        raise VersionRefusedError(
            "golden_rows",
            f"version {model.version} accepts a difference of {golden.tolerance}; allowed is 0 to 0.01",
            value=golden.tolerance,
            threshold=0.01,
        )


def golden_inputs(model: model_pb2.ModelVersion, features: int) -> NDArray[np.float32]:
    """The rows to ask a server for: the golden rows, or one row of zeros where a version has none.

    Returns:
        Float32, rows x features.
    """
    if not model.golden.rows:
        return np.zeros((1, features), np.float32)
    return np.asarray(model.golden.features, np.float32).reshape(model.golden.rows, features)


def check_scores(
    model: model_pb2.ModelVersion, scores: Sequence[float] | NDArray[np.float32], *, numeric: bool = False
) -> None:
    """Compare a server's scores for `golden_inputs` with the learner's.

    Args:
        model: the version.
        scores: one per row, as the server gave them.
        numeric: whether they are numbers, not probabilities.

    Raises:
        VersionRefusedError: a wrong number of scores, one that is not finite or, of probabilities, outside 0 to 1, or
            one that differs by more than the version's tolerance (of its size, where that is above 1).
    """
    given = np.asarray(scores, np.float64).reshape(-1)
    rows = model.golden.rows or 1
    if len(given) != rows:
        raise VersionRefusedError("golden_rows", f"version {model.version} gave {len(given)} scores for {rows} rows")
    if not np.isfinite(given).all():
        raise VersionRefusedError(
            "finite_scores",
            f"version {model.version} gave {int((~np.isfinite(given)).sum())} of {rows} scores that are not finite",
        )
    outside = np.abs(given - given.clip(0, 1))
    if not numeric and outside.max() > 0:
        worst = float(given[outside.argmax()])
        raise VersionRefusedError(
            "score_range",
            f"version {model.version} gave the score {worst}; allowed is 0 to 1",
            value=worst,
            threshold=1,
        )
    if not model.golden.rows:
        return
    golden = np.asarray(model.golden.scores, np.float64)
    difference = float((np.abs(given - golden) / np.maximum(1.0, np.abs(golden))).max())
    if not difference <= model.golden.tolerance:
        raise VersionRefusedError(
            "golden_rows",
            f"version {model.version} differs from the learner by {difference:.3g}; "
            f"allowed is {model.golden.tolerance:.3g}",
            value=difference,
            threshold=model.golden.tolerance,
        )


def score_shift(first: Sequence[float] | NDArray[np.floating], second: Sequence[float] | NDArray[np.floating]) -> float:
    """Wasserstein-1 distance between two empirical distributions: the mean distance of their quantiles.

    Args:
        first: scores, at least one, all finite.
        second: scores, at least one, all finite; as many or not.

    Returns:
        In units of the score.

    Example:
        >>> score_shift([0.1, 0.2], [0.2, 0.3])
        0.1

    Reference:
        Villani, Optimal Transport: Old and New, 2009, chapter 6; on the line it is the L1 distance of the quantiles.
    """
    one, other = np.sort(np.asarray(first, np.float64)), np.sort(np.asarray(second, np.float64))
    # Quantiles at the steps of both.
    steps = np.union1d(np.arange(1, len(one) + 1) / len(one), np.arange(1, len(other) + 1) / len(other))
    middles = steps - np.diff(steps, prepend=0.0) / 2
    at_one = one[np.minimum((middles * len(one)).astype(np.intp), len(one) - 1)]
    at_other = other[np.minimum((middles * len(other)).astype(np.intp), len(other) - 1)]
    return round(float(np.abs(at_one - at_other) @ np.diff(steps, prepend=0.0)), 12)


def check_beside_parent(
    model: model_pb2.ModelVersion,
    parent: model_pb2.ModelVersion,
    scores: NDArray[np.float32],
    parent_scores: NDArray[np.float32],
    *,
    shift_allowed: float,
    min_learned: int,
) -> None:
    """Compare the scores of a refresh with those of the version that it replaces, for the same rows.

    Args:
        model: the refresh.
        parent: the version that it replaces.
        scores: of the refresh, one per row.
        parent_scores: of the parent, for the same rows.
        shift_allowed: largest distance between the distributions.
        min_learned: outcomes that the parent must have learned for the distance to be judged.

    Raises:
        VersionRefusedError: a score is not finite where the parent's is, or the distance is larger.
    """
    both = np.isfinite(parent_scores)
    wrong = int((~np.isfinite(scores[both])).sum())
    if wrong:
        raise VersionRefusedError(
            "finite_scores",
            f"version {model.version} gave {wrong} scores that are not finite for {int(both.sum())} recent rows "
            f"that {parent.version} scored",
        )
    if parent.untrained or parent.learned_count < min_learned or not both.any():
        return
    shift = score_shift(scores[both], parent_scores[both])
    if shift > shift_allowed:
        raise VersionRefusedError(
            "score_shift",
            f"scores of version {model.version} are {shift:.3g} from those of {parent.version} on average; "
            f"allowed is {shift_allowed:.3g}",
            value=shift,
            threshold=shift_allowed,
        )
