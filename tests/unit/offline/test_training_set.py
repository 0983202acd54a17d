"""A training set has the features that the definition gives each event at its time, whatever it was cut into."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.offline import entity_features
from headrace.offline.errors import ProcessEnded, TableError
from headrace.offline.event_table import EventFile
from headrace.offline.parity import compare_vectors
from headrace.offline.parquet_file import ParquetFile
from headrace.offline.training_set import compute_training_set
from headrace.pipeline import DefinitionError, Entity, EventSchema, FeatureView, Label, Model, Pipeline, Text, count
from headrace.pipeline.aggregations.operations import OPERATIONS
from headrace.pipeline.recompute import Positions, recompute
from headrace.pipeline.state import compile_plan
from headrace.platform.pipelines import load_pipeline
from tests.unit.offline.pipelines import OF_EACH_OPERATION, WHOLE, fraud, small
from tests.unit.offline.random_history import random_history
from tests.unit.offline.tables import computed, event_frame, label_frame

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("pipeline", WHOLE, ids=lambda one: one.name)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 50), with_labels=st.booleans())
def test_it_equals_the_yardstick(pipeline: Pipeline, seed: int, count: int, with_labels: bool) -> None:
    check(pipeline, seed, count, with_labels)


@pytest.mark.parametrize("pipeline", OF_EACH_OPERATION, ids=list(OPERATIONS))
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), with_labels=st.booleans())
def test_each_aggregation_equals_its_definition(pipeline: Pipeline, seed: int, count: int, with_labels: bool) -> None:
    check(pipeline, seed, count, with_labels)


def check(pipeline: Pipeline, seed: int, count: int, with_labels: bool) -> None:
    """Compare the two over a random stream."""
    random = np.random.default_rng(seed)
    history = random_history(pipeline, random, count)
    labels = history.labels if with_labels else random_history(pipeline, random, 0).labels
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(entity_features, "GROUP_ROWS", int(random.integers(1, 30)))
        table, made = computed(
            pipeline,
            event_frame(pipeline, history),
            label_frame(history, random) if with_labels else None,
            Path(folder),
            rows=int(random.integers(1, 20)),
        )
    events = history.events.events
    first = np.unique(events.ids, return_index=True)[1]
    rows = np.sort(first)
    expected = recompute(compile_plan(pipeline), events.take(rows), Positions(), history.events, labels)
    assert table["event_id"].to_list() == [events.ids[row] for row in rows]
    assert made.rows == len(rows)
    assert made.repeated == count - len(rows)
    values = np.array(table.select(pipeline.feature_names).to_numpy(), np.float64)
    assert compare_vectors(pipeline, values, expected).rows_different == 0
    if with_labels:
        last = dict(zip(labels.ids, zip(labels.values, labels.known, strict=True), strict=True))
        found = table.select("event_id", "label", pl.col("label_time").dt.epoch("us")).iter_rows()
        assert {i: (value, time) for i, value, time in found if value is not None} == last


def test_the_columns_and_what_the_metadata_say(tmp_path: Path) -> None:
    history = random_history(fraud, np.random.default_rng(1), 20)
    table, _ = computed(
        fraud, event_frame(fraud, history), label_frame(history, np.random.default_rng(1)), tmp_path, rows=8
    )
    assert table.columns == [
        "event_id",
        "event_time",
        "customer_id",
        "terminal_id",
        *fraud.feature_names,
        "label",
        "label_time",
    ]
    assert table.schema["event_time"] == pl.Datetime("us", "UTC")
    assert {table.schema[name] for name in fraud.feature_names} == {pl.Float64()}
    metadata = pl.read_parquet_metadata(tmp_path / "set.parquet")
    assert metadata["headrace.pipeline"] == "fraud"
    assert metadata["headrace.features_fingerprint"] == f"{fraud.features_fingerprint:#018x}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.parquet", "labels.parquet", "set.parquet"]


def test_processes_give_what_one_gives(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    history = random_history(fraud, random, 300, keys=20)
    events, labels = event_frame(fraud, history), label_frame(history, random)
    alone, _ = computed(fraud, events, labels, tmp_path, rows=100)
    together, _ = computed(fraud, events, labels, tmp_path, rows=40, workers=2)
    assert alone.equals(together)
    broken = events.with_columns(
        pl.when(pl.int_range(pl.len()) == 150).then(-1).otherwise("amount_cents").alias("amount_cents")
    )
    with pytest.raises(
        TableError, match=r"column amount_cents, row 151: amount_cents is -1; allowed is 0 to 100000000"
    ):
        computed(fraud, broken, labels, tmp_path, rows=40, workers=2)


def test_labels_of_no_event_are_counted(tmp_path: Path) -> None:
    history = random_history(small, np.random.default_rng(3), 10)
    labels = pl.DataFrame({"event_id": ["e0", "other"], "label": [1, 0], "label_time": [5, 5]})
    table, made = computed(small, event_frame(small, history), labels, tmp_path)
    assert (made.labelled, made.unmatched_labels) == (1, 1)
    assert table["label"].drop_nulls().to_list() == [1.0]


def test_a_label_counts_from_its_time_on(tmp_path: Path) -> None:
    events = pl.DataFrame(
        {
            "event_id": ["a", "b", "c"],
            "event_time": [10, 17, 19],
            "customer": ["c", "c", "c"],
            "terminal": ["t", "t", "t"],
            "cents": [100, 100, 100],
            "weight": [0.0, 0.0, 0.0],
        }
    )
    labels = pl.DataFrame({"event_id": ["a"], "label": [True], "label_time": [18]})
    table, _ = computed(small, events, labels, tmp_path)
    assert table["terminal_positives_30"].to_list() == [0.0, 0.0, 1.0]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pipeline = Pipeline(
        "twice",
        event=EventSchema(Text("shop_count_10us")),
        entities=[Entity("shop", "shop_count_10us")],
        key="shop",
        features=[FeatureView("shop", count(10, hop=1))],
        label=Label(),
        model=Model("none", lambda: None),
    )
    with pytest.raises(DefinitionError, match="'shop_count_10us' would name two columns"):
        computed(
            pipeline, pl.DataFrame({"event_id": ["a"], "event_time": [1], "shop_count_10us": ["s"]}), None, tmp_path
        )


ENDING = """
import os
from multiprocessing import parent_process

from headrace.pipeline import Entity, EventSchema, Label, Model, OnDemand, Pipeline, Text


def end(events):
    if parent_process() is not None:
        os._exit(9)
    return events.times * 1.0


pipeline = Pipeline(
    "ending",
    event=EventSchema(Text("key")),
    entities=[Entity("key", "key")],
    key="key",
    features=[OnDemand("end", end)],
    label=Label(),
    model=Model("none", lambda: None),
)
"""


def test_a_process_that_ends_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "ending.py").write_text(ENDING)
    pl.DataFrame({"event_id": ["a", "b"], "event_time": [1, 2], "key": ["k", "k"]}).write_parquet(
        tmp_path / "e.parquet"
    )
    pipeline = load_pipeline(str(tmp_path / "ending.py"))
    events = EventFile(ParquetFile(tmp_path / "e.parquet"), pipeline.event)
    with pytest.raises(ProcessEnded, match="most likely for want of memory: try fewer --workers"):
        compute_training_set(
            pipeline, str(tmp_path / "ending.py"), events, None, tmp_path / "set.parquet", workers=2, block_rows=1
        )
    assert sorted(path.name for path in tmp_path.glob("*.parquet*")) == ["e.parquet"]
