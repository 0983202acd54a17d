"""False alarms and finds of the monitor's statistics on published data.

Needs `handbook_features_published.parquet` in the folder that HEADRACE_HANDBOOK names (`../shared/data/handbook` where
it is not set), and `sea50k.csv.gz` and `sea_stream.csv.gz` in the folder `drift` beside that one, so it runs by its
path and not with the tests of the clone.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from river import linear_model, optim, preprocessing

from headrace.monitor.warm_up import warm_up
from headrace.pipeline import DAY
from headrace.platform.pipelines import load_pipeline
from headrace.statistics.loss_change import LossWatch, Worsening
from headrace.statistics.season_drift import drift_by_season

FOLDER = Path(os.environ.get("HEADRACE_HANDBOOK", Path(__file__).parents[3] / "shared" / "data" / "handbook"))
LABEL_DELAY_DAYS = 7
FIRST_DAY_US = 17_622 * DAY

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Handbook:
    """The published features and labels, and the scores of a model that learns each day the labels of a week before."""

    def __init__(self) -> None:
        table = pl.read_parquet(FOLDER / "handbook_features_published.parquet").sort(
            "TX_TIME_SECONDS", "TRANSACTION_ID"
        )
        names = ["TX_AMOUNT", "TX_DURING_WEEKEND", "TX_DURING_NIGHT"]
        names += [name for name in table.columns if name.endswith("_WINDOW")]
        self.features: Floats = table.select(pl.col(name).cast(pl.Float64) for name in names).to_numpy()
        self.times = FIRST_DAY_US + table["TX_TIME_SECONDS"].to_numpy().astype(np.int64) * 1_000_000
        self.day = (self.times - FIRST_DAY_US) // DAY
        self.fraud: Bools = table["TX_FRAUD"].to_numpy().astype(np.bool_)
        self.trained = self.day >= LABEL_DELAY_DAYS
        self.score = self._learn()

    def _learn(self) -> Floats:
        scaler, model = preprocessing.StandardScaler(), linear_model.LogisticRegression(optim.SGD(0.005))
        score = np.full(len(self.day), 0.5)
        columns = range(self.features.shape[1])
        for day in range(LABEL_DELAY_DAYS, int(self.day[-1]) + 1):
            learn = slice(*np.searchsorted(self.day, [day - LABEL_DELAY_DAYS, day - LABEL_DELAY_DAYS + 1]))
            for row, fraud in zip(self.features[learn].tolist(), self.fraud[learn].tolist(), strict=True):
                features = dict(enumerate(row))
                scaler.learn_one(features)
                model.learn_one(scaler.transform_one(features), fraud)
            answer = slice(*np.searchsorted(self.day, [day, day + 1]))
            mean = np.array([scaler.means[column] for column in columns])
            spread = np.sqrt([scaler.vars[column] or 1.0 for column in columns])
            weights = np.array([model.weights[column] for column in columns])
            scaled = (self.features[answer] - mean) / spread
            score[answer] = 1 / (1 + np.exp(-(scaled @ weights + model.intercept)))
        return score


@pytest.fixture(scope="module")
def handbook() -> Handbook:
    return Handbook()


@pytest.mark.timeout(300)
def test_no_drift_in_half_a_year_of_payments(handbook: Handbook) -> None:
    pipeline = load_pipeline("pipelines/fraud.py")
    table = drift_by_season(
        handbook.times,
        handbook.features,
        handbook.score,
        pipeline.feature_names,
        warm_up=warm_up(pipeline),
        season=DAY,
        scored=handbook.trained,
    )
    assert (~np.isnan(table.psi)).sum(axis=0).min() == 137
    assert int(table.drifted.sum()) == 0


@pytest.mark.timeout(300)
def test_no_change_of_the_concept_in_half_a_year_of_payments(handbook: Handbook) -> None:
    rows = handbook.day >= 37
    assert LossWatch(0.002).update(handbook.fraud[rows], handbook.score[rows]) == []


@pytest.mark.timeout(300)
def test_frauds_that_the_model_no_longer_sees_are_found_within_two_weeks(handbook: Handbook) -> None:
    score = handbook.score.copy()
    random = np.random.default_rng(0)
    hidden = np.nonzero(handbook.fraud & (handbook.day >= 100))[0]
    hidden = hidden[random.random(len(hidden)) < 0.3]
    score[hidden] = score[random.choice(np.nonzero(~handbook.fraud & (handbook.day >= 100))[0], len(hidden))]
    rows = np.nonzero(handbook.day >= 37)[0]
    found = LossWatch(0.002).update(handbook.fraud[rows], score[rows])
    assert 100 <= min(handbook.day[rows[one.row]] for one in found) <= 114


def concept_changes(name: str) -> list[Worsening]:
    """What the watch finds on the answers of an online model that learns every label at once."""
    table = pl.read_csv(FOLDER.parent / "drift" / f"{name}.csv.gz")
    model: Any = preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.005))
    positive = table["y"].to_numpy().astype(np.bool_)
    score = np.empty(len(positive))
    for row, (features, label) in enumerate(
        zip(table.select("f1", "f2", "f3").iter_rows(named=True), positive.tolist(), strict=True)
    ):
        score[row] = model.predict_proba_one(features)[True]
        model.learn_one(features, label)
    return LossWatch(0.002).update(positive, score)


def test_two_of_the_three_concept_changes_of_sea_are_found() -> None:
    assert [(one.loss, one.row) for one in concept_changes("sea50k")] == [("error", 25_247), ("error", 37_727)]


def test_a_stream_without_a_concept_change_raises_nothing() -> None:
    assert concept_changes("sea_stream") == []


@pytest.mark.parametrize("name", ["sea50k", "sea_stream"])
def test_the_inputs_of_sea_do_not_drift(name: str) -> None:
    table = pl.read_csv(FOLDER.parent / "drift" / f"{name}.csv.gz")
    rows = np.arange(len(table), dtype=np.int64)
    features = table.select("f1", "f2", "f3").to_numpy()
    drift = drift_by_season(rows, features, np.zeros(len(rows)), ["f1", "f2", "f3"], warm_up=[0, 0, 0], season=1_000)
    assert int(drift.drifted.sum()) == 0
