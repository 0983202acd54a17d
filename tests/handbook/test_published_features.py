"""The features of all the handbook's payments, computed offline, are those that its authors have published.

Needs `handbook_raw.parquet` and `handbook_features_published.parquet` in the folder that HEADRACE_HANDBOOK names
(`../shared/data/handbook` where it is not set), so it runs by its path and not with the tests of the clone.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headrace.demo.payments import load_source
from headrace.offline.event_table import EventFile
from headrace.offline.label_table import LabelFile
from headrace.offline.parquet_file import ParquetFile
from headrace.offline.training_set import compute_training_set
from headrace.pipeline import DAY
from headrace.platform.pipelines import load_pipeline
from tests.handbook.published_features import compare

FOLDER = Path(os.environ.get("HEADRACE_HANDBOOK", Path(__file__).parents[3] / "shared" / "data" / "handbook"))
REFERENCE = "pipelines/fraud.py"


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The training set of all payments, with labels that are known a week later."""
    folder = tmp_path_factory.mktemp("handbook")
    payments = load_source(FOLDER / "handbook_raw.parquet")
    pipeline = load_pipeline(REFERENCE)
    pl.DataFrame(
        {
            "event_id": payments.transaction_id,
            "event_time": payments.event_time_us,
            "customer_id": payments.customer_id,
            "terminal_id": payments.terminal_id,
            "amount_cents": payments.amount_cents,
        }
    ).write_parquet(folder / "events.parquet")
    pl.DataFrame(
        {
            "event_id": payments.transaction_id,
            "label": payments.fraud,
            "label_time": payments.event_time_us + 7 * DAY,
        }
    ).write_parquet(folder / "labels.parquet")
    compute_training_set(
        pipeline,
        REFERENCE,
        EventFile(ParquetFile(folder / "events.parquet"), pipeline.event),
        LabelFile(ParquetFile(folder / "labels.parquet")),
        folder / "set.parquet",
    )
    return pl.read_parquet(folder / "set.parquet")


@pytest.mark.timeout(300)
def test_they_are_equal_but_for_payments_of_one_customer_in_one_second(computed: pl.DataFrame) -> None:
    found = compare(computed, FOLDER)
    assert (found.rows, found.unknown) == (1_754_155, 0)
    assert len(found.wrong) == 0
    assert len(found.ties) == 58
    different = found.ties.filter(pl.col("features").list.len() > 0)
    assert len(different) == 29
    # The published set counts the earlier of the two; nothing of a terminal is concerned.
    names = {name for names in different["features"] for name in names}
    assert names == {f"customer_{what}_{days}d" for what in ("count", "mean_amount_cents") for days in (1, 7, 30)}


@pytest.mark.timeout(300)
def test_every_payment_has_its_label(computed: pl.DataFrame) -> None:
    assert computed["label"].null_count() == 0
    assert int(computed["label"].sum()) == 14_681
    delay = computed["label_time"].dt.epoch("us").to_numpy() - computed["event_time"].dt.epoch("us").to_numpy()
    assert np.unique(delay).tolist() == [7 * DAY]


def test_a_vector_that_is_off_by_one_is_found(computed: pl.DataFrame) -> None:
    off = computed.head(50_000).with_columns(
        pl.when(pl.int_range(pl.len()) == 1234)
        .then(pl.col("terminal_count_7d") + 1)
        .otherwise("terminal_count_7d")
        .alias("terminal_count_7d")
    )
    found = compare(off, FOLDER)
    assert found.wrong.select("event_id", "features").rows() == [("1234", ["terminal_count_7d"])]
