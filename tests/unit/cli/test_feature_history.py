"""`headrace features compute` and `parity` on files: what they say, and their status."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from headrace.cli.__main__ import main


@pytest.fixture
def payments(tmp_path: Path) -> Path:
    """Three payments, of which two are one, and a label of another."""
    pl.DataFrame(
        {
            "event_id": ["a", "b", "a"],
            "event_time": [1_600_000_000_000_000, 1_600_000_001_000_000, 1_600_000_000_000_000],
            "customer_id": ["c", "c", "c"],
            "terminal_id": ["t", "t", "t"],
            "amount_cents": [100, 300, 100],
        }
    ).write_parquet(tmp_path / "payments.parquet")
    pl.DataFrame({"event_id": ["b", "x"], "label": [1, 0], "label_time": [1_600_000_002_000_000] * 2}).write_parquet(
        tmp_path / "labels.parquet"
    )
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["features", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_training_set_and_its_parity(payments: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events, to = str(payments / "payments.parquet"), payments / "set.parquet"
    labels = str(payments / "labels.parquet")
    assert run("compute", "--from", events, "--labels", labels, "--to", str(to), "--workers", "1") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{to}: 2 events with 15 features; 1 left out, whose id an earlier one has",
        "1 of them with a label; 1 labels of no event",
    ]
    table = pl.read_parquet(to)
    assert table["customer_mean_amount_cents_1d"].to_list() == [1.0, 2.0]
    compared = ["parity", "--from", events, "--labels", labels, "--workers", "1", "--served"]
    assert run(*compared, str(to)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 vectors compared, 0 different"
    wrong = payments / "wrong.parquet"
    table.with_columns(night=pl.col("night") + 1).write_parquet(wrong)
    assert run(*compared, str(wrong)) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-2:] == ["2 vectors compared, 2 different", "different: a, b"]
    assert next(line for line in said if line.startswith("night")).split() == ["night", "2", "1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compute", "--from", "a.csv", "--to", "b.parquet"], "--from a.csv: allowed is a .parquet file or `topic`"),
        (["compute", "--from", "no.parquet", "--to", "b.parquet"], "no.parquet: there is no such file"),
        (["compute", "--from", "topic", "--to", "b.csv"], "--to b.csv: the name must end in .parquet"),
        (["compute", "--from", "topic", "--to", "no/b.parquet"], "--to no/b.parquet: there is no folder no"),
        (
            ["parity", "--served", "answers"],
            "--served answers: allowed is vectors, predictions or a .parquet file",
        ),
        (["parity", "--labels", "l.parquet"], "--labels l.parquet: allowed with --from topic is topic"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert capsys.readouterr().err == f"error: {said}\n"
