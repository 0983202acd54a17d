"""What a version must satisfy."""

import math

import numpy as np
import pytest

from headrace.rollout.checks import Expected, VersionRefusedError, check_announcement, check_scores, golden_inputs
from headrace.v1 import model_pb2

EXPECTED = Expected("fraud", 0xABC, ("amount", "night"))


def version() -> model_pb2.ModelVersion:
    return model_pb2.ModelVersion(
        pipeline="fraud",
        version="000001",
        features_fingerprint=0xABC,
        feature_names=["amount", "night"],
        golden=model_pb2.GoldenRows(rows=2, features=[1, 0, 2, 1], scores=[0.25, 0.75], tolerance=1e-6),
    )


def test_a_version_of_this_pipeline_passes() -> None:
    model = version()
    check_announcement(model, EXPECTED)
    assert golden_inputs(model, 2).tolist() == [[1, 0], [2, 1]]
    check_scores(model, np.asarray([[0.25], [0.75]], np.float32))


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (model_pb2.ModelVersion(pipeline="other"), "pipeline"),
        (model_pb2.ModelVersion(version="../000001"), "version"),
        (model_pb2.ModelVersion(version="x-000001"), "version"),
        (model_pb2.ModelVersion(features_fingerprint=0xABD), "features_fingerprint"),
        (model_pb2.ModelVersion(feature_names=["more"]), "feature_names"),
        (model_pb2.ModelVersion(golden=model_pb2.GoldenRows(rows=3)), "golden_rows"),
        (model_pb2.ModelVersion(golden=model_pb2.GoldenRows(scores=[0.1])), "golden_rows"),
        (model_pb2.ModelVersion(golden=model_pb2.GoldenRows(tolerance=0.5)), "golden_rows"),
        (model_pb2.ModelVersion(golden=model_pb2.GoldenRows(tolerance=math.nan)), "golden_rows"),
    ],
)
def test_what_does_not_fit_the_pipeline_is_refused(change: model_pb2.ModelVersion, check: str) -> None:
    model = version()
    model.MergeFrom(change)
    with pytest.raises(VersionRefusedError) as refused:
        check_announcement(model, EXPECTED)
    assert refused.value.check == check
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("scores", "check"),
    [
        ([0.25], "golden_rows"),
        ([0.25, 0.7501], "golden_rows"),
        ([0.25, math.nan], "finite_scores"),
        ([0.25, math.inf], "finite_scores"),
        ([-0.01, 0.75], "score_range"),
        ([0.25, 1.01], "score_range"),
    ],
)
def test_wrong_scores_are_refused(scores: list[float], check: str) -> None:
    with pytest.raises(VersionRefusedError) as refused:
        check_scores(version(), scores)
    assert refused.value.check == check


def test_numbers_may_be_any_and_differ_by_their_size() -> None:
    model = version()
    model.golden.scores[:] = [-40.0, 1e6]
    check_scores(model, [-40.0, 1e6 * (1 + model.golden.tolerance / 2)], numeric=True)
    beyond = [-40.0, 1e6 * (1 + 2 * model.golden.tolerance)]
    for scores, check in ((beyond, "golden_rows"), ([-40.0, math.inf], "finite_scores")):
        with pytest.raises(VersionRefusedError) as refused:
            check_scores(model, scores, numeric=True)
        assert refused.value.check == check


def test_without_golden_rows_a_row_of_zeros_must_give_a_probability() -> None:
    model = version()
    model.ClearField("golden")
    check_announcement(model, EXPECTED)
    assert golden_inputs(model, 2).tolist() == [[0, 0]]
    check_scores(model, [0.5])
    with pytest.raises(VersionRefusedError):
        check_scores(model, [math.nan])
