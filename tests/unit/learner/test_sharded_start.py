"""What learners that share the outcomes refuse before they start."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from river import linear_model, optim, tree

from headrace.learner.errors import UnsupportedRecipeError
from headrace.learner.settings import LearnerSettings
from headrace.learner.sharded_service import check_shards
from headrace.pipeline import Model, Pipeline
from headrace.platform.pipelines import load_pipeline
from headrace.platform.settings import SettingsError
from headrace.platform.signing import create_key_pair


@pytest.fixture(scope="module")
def fraud() -> Pipeline:
    return load_pipeline("pipelines/fraud.py")


def logistic() -> Any:
    return linear_model.LogisticRegression(optim.SGD(0.005))


def with_models(pipeline: Pipeline, champion: Model, *challengers: Model) -> Pipeline:
    other = copy.copy(pipeline)
    other.model, other.challengers = champion, challengers
    return other


def test_the_default_pipeline_can_be_shared(fraud: Pipeline) -> None:
    check_shards(fraud)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (Model("trees", tree.HoeffdingTreeClassifier), "HoeffdingTreeClassifier cannot"),
        (Model("calibrated", logistic, calibration="platt"), "a model with calibration='platt' cannot"),
        (Model("reset", logistic, reset_on_drift=0.002), "a model with reset_on_drift=0.002 cannot"),
    ],
)
def test_a_model_that_cannot_be_merged_is_refused_by_name(fraud: Pipeline, model: Model, named: str) -> None:
    with pytest.raises(UnsupportedRecipeError, match=f"^{named.replace('.', '[.]')} be learned in shards"):
        check_shards(with_models(fraud, model))


def test_challengers_are_refused(fraud: Pipeline) -> None:
    with pytest.raises(UnsupportedRecipeError, match=r"^2 models side by side cannot be learned in shards"):
        check_shards(with_models(fraud, fraud.model, Model("other", tree.HoeffdingTreeClassifier)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"INSTANCE": "4"}, "HEADRACE_LEARNER_INSTANCE: with HEADRACE_LEARNER_SHARDS=4 it is a number from 0 to 3"),
        ({"INSTANCE": "a"}, "HEADRACE_LEARNER_INSTANCE: with HEADRACE_LEARNER_SHARDS=4 it is a number from 0 to 3"),
        ({"LOCKSTEP": "true"}, "HEADRACE_LEARNER_LOCKSTEP: true needs HEADRACE_LEARNER_SHARDS=1"),
    ],
)
def test_settings_that_do_not_fit_are_named(
    settings: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = create_key_pair(tmp_path)
    for name, value in {"SHARDS": "4", "SIGNING_KEY": str(keys.private), **settings}.items():
        monkeypatch.setenv(f"HEADRACE_LEARNER_{name}", value)
    with pytest.raises(SettingsError) as refused:
        LearnerSettings.load()
    assert said in str(refused.value)
