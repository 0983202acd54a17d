"""The split and the measures on the handbook's own payments.

Needs `handbook_raw.parquet` and `handbook_features_published.parquet` in the folder that HEADRACE_HANDBOOK names
(`../shared/data/handbook` where it is not set), so it runs by its path and not with the tests of the clone.
"""

import datetime as dt
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from headrace.demo.payments import Payments, load_source
from headrace.demo.quality import DAY_US, handbook_split, quality_overall

FOLDER = Path(os.environ.get("HEADRACE_HANDBOOK", Path(__file__).parents[3] / "shared" / "data" / "handbook"))
START = dt.date(2018, 7, 25)


@pytest.fixture(scope="module")
def handbook() -> Payments:
    return load_source(FOLDER / "handbook_raw.parquet")


def test_all_payments_are_read(handbook: Payments) -> None:
    assert len(handbook) == 1_754_155
    assert int(handbook.fraud.sum()) == 14_681
    assert handbook.event_time_us[0] == 1_522_540_831_000_000
    amount = pl.read_parquet(FOLDER / "handbook_raw.parquet", columns=["TX_AMOUNT"])["TX_AMOUNT"].to_numpy()
    assert np.abs(amount * 100 - handbook.amount_cents).max() < 1e-6


def test_the_split_has_the_published_rows(handbook: Payments) -> None:
    chosen = handbook_split(handbook.history(), START)
    assert int(chosen.sum()) == 58_264
    assert int(handbook.fraud[chosen].sum()) == 385


def test_the_measures_of_the_published_logistic_regression(handbook: Payments) -> None:
    table = pl.read_parquet(FOLDER / "handbook_features_published.parquet")
    assert table["TRANSACTION_ID"].cast(pl.String).to_list() == handbook.transaction_id
    columns = ["TX_AMOUNT", "TX_DURING_WEEKEND", "TX_DURING_NIGHT"]
    features = table.select(*columns, pl.col("^.*_WINDOW$")).to_numpy()
    day = handbook.event_time_us // DAY_US - (START - dt.date(1970, 1, 1)).days
    training, test = (day >= 0) & (day < 7), handbook_split(handbook.history(), START)
    scaler = StandardScaler().fit(features[training])
    model = LogisticRegression().fit(scaler.transform(features[training]), handbook.fraud[training])
    score = np.full(len(handbook), np.nan)
    score[test] = model.predict_proba(scaler.transform(features[test]))[:, 1]
    measured = quality_overall(handbook.history(), score, test)
    # The handbook prints .871 / .606 / .291.
    assert measured.auc == pytest.approx(0.871, abs=0.002)
    assert measured.average_precision == pytest.approx(0.606, abs=0.002)
    assert measured.card_precision_at_100 == pytest.approx(0.291, abs=0.002)
