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
