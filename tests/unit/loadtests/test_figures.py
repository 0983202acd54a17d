"""Figures are judged the right way round, and written so that a program can read them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from loadtests.figures import COLUMNS, figure, number, table, write_json

FIELDS = {"name", "value", "unit", "control", "control_value", "ratio", "goal", "met"}


def test_more_than_the_control_is_better_for_a_rate() -> None:
    rate = figure("rate", 300.0, "events/s", control=("other", 100.0), least_ratio=2)
    assert rate.ratio == 3
    assert rate.goal == "≥ 2 × control"
    assert rate.met is True


def test_less_than_the_control_is_better_for_a_cost() -> None:
    cost = figure("cost", 20.0, "µs", better="lower", control=("other", 100.0), least_ratio=10)
    assert cost.ratio == 5
    assert cost.met is False


def test_every_goal_must_be_met() -> None:
    assert figure("rate", 50_000, "events/s", least=40_000, control=("other", 60_000), least_ratio=1).met is False
    assert figure("rate", 50_000, "events/s", least=40_000, control=("other", 40_000), least_ratio=1).met is True
    assert figure("time", 61.0, "s", better="lower", most=60).met is False


def test_a_figure_without_a_goal_is_not_judged() -> None:
    alone = figure("bytes", 12.0, "B")
    assert alone.goal is None
    assert alone.met is None


def test_a_ratio_without_a_control_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a control"):
        figure("rate", 1.0, "", least_ratio=2)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1_234_567.8, "1,234,568"), (999.4, "999"), (12.345, "12.3"), (0.0123456, "0.0123"), (0, "0"), (2.5, "2.5")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_table_has_a_line_for_each_figure() -> None:
    lines = table([figure("rate", 1.0, "events/s", least=2), figure("bytes", 12.0, "B")]).splitlines()
    assert len(lines) == 4
    assert [lines[0].index(column) for column in COLUMNS] == sorted(lines[0].index(column) for column in COLUMNS)
    assert lines[2].endswith("NO")


def test_json_has_every_field_of_every_figure(tmp_path: Path) -> None:
    path = tmp_path / "new" / "features.json"
    write_json(path, [figure("rate", 300.0, "events/s", control=("other", 100.0)), figure("bytes", 12.0, "B")])
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert [set(row) for row in rows] == [FIELDS, FIELDS]
    assert rows[0] == {
        "name": "rate",
        "value": 300.0,
        "unit": "events/s",
        "control": "other",
        "control_value": 100.0,
        "ratio": 3.0,
        "goal": None,
        "met": None,
    }
    assert not list(tmp_path.rglob("*.draft"))


def test_json_has_no_value_that_json_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "features.json"
    write_json(path, [figure("rate", math.nan, "", control=("nothing", 0.0))])
    row = json.loads(path.read_text(encoding="utf-8"))[0]
    assert row["value"] is None
    assert row["ratio"] is None
