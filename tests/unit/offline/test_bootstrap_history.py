"""A history is read from Parquet or CSV, and its labelled rows come in learning order."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from headrace.offline.bootstrap_history import BATCH_ROWS, bootstrap_files, labelled_rows
from headrace.offline.errors import TableError
from headrace.offline.event_table import EventFile
from headrace.offline.label_table import LabelFile
from headrace.offline.parquet_file import ParquetFile
from headrace.offline.training_set import compute_training_set
from headrace.platform.pipelines import load_pipeline

FRAUD = "pipelines/fraud.py"
DAY_US = 86_400_000_000


def history(count: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "event_id": [f"{number:05d}" for number in range(count)],
            "event_time": [(number + 1) * 60_000_000 for number in range(count)],
            # As text in CSV too, though they look like numbers.
            "customer_id": [f"{number % 7:04d}" for number in range(count)],
            "terminal_id": [f"{number % 5}" for number in range(count)],
            "amount_cents": [100 + number for number in range(count)],
            "label": [None if number % 10 == 9 else int(number % 4 == 0) for number in range(count)],
            # Ties, and not in the order of the events.
            "label_time": [
                None
                if number % 10 == 9
                else number * 60_000_000 // 600_000_000 * 600_000_000 + DAY_US * (1 + number % 3)
                for number in range(count)
            ],
        }
    )


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("apart", [True, False])
def test_rows_in_the_order_of_label_time_and_id(tmp_path: Path, suffix: str, apart: bool) -> None:
    pipeline, frame, scratch = load_pipeline(FRAUD), history(300), tmp_path / "scratch"
    scratch.mkdir()
    events, labels = tmp_path / f"events{suffix}", tmp_path / f"labels{suffix}"
    known = frame.select("event_id", "label", "label_time").drop_nulls()
    for table, path in ((frame.drop("label", "label_time") if apart else frame, events), (known, labels)):
        if suffix == ".csv":
            table.write_csv(path)
        else:
            table.write_parquet(path)
    files = bootstrap_files(events, labels if apart else None, pipeline.event, scratch)
    to = scratch / "training.parquet"
    compute_training_set(
        pipeline,
        FRAUD,
        EventFile(ParquetFile(files.events), pipeline.event),
        LabelFile(ParquetFile(files.labels)),
        to,
        workers=1,
    )
    (part,) = labelled_rows(to, pipeline)
    expected = known.sort("label_time", "event_id")
    assert part.event_ids == expected["event_id"].to_list()
    assert part.label_times_us.tolist() == expected["label_time"].to_list()
    assert part.labels.tolist() == [value == 1 for value in expected["label"].to_list()]
    assert part.rows.shape == (270, len(pipeline.feature_names))
    amounts = dict(zip(frame["event_id"].to_list(), frame["amount_cents"].to_list(), strict=True))
    assert part.rows[:, 0].tolist() == pytest.approx([amounts[one] / 100 for one in part.event_ids])
    assert BATCH_ROWS > 300


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("events.txt", "", "unknown suffix; allowed are .parquet and .csv"),
        ("nowhere.csv", None, "there is no such file"),
        ("events.csv", "event_id,event_time\n1,2\n", "label"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    with pytest.raises(TableError, match=said):
        bootstrap_files(file, None, load_pipeline(FRAUD).event, tmp_path)
