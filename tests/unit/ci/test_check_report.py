"""The check of a lockstep report says what does not hold."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / ".ci" / "check_report.py"


def load() -> Any:
    spec = importlib.util.spec_from_file_location("check_report", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_report = load()


def report(**changed: object) -> dict[str, Any]:
    counts = dict.fromkeys(("events", "predictions", "labels", "outcomes", "learned"), 5)
    zeros = dict.fromkeys(
        ("predictions_missing", "predictions_duplicated", "outcomes_missing", "outcomes_duplicated", "failed_requests"),
        0,
    )
    parity = {"rows_compared": 5, "rows_different": 0, "rows_stale": 0, "max_abs_error": 0.0}
    return {"lockstep": True, **counts, **zeros, "feature_parity": parity, **changed}


def status(tmp_path: Path, content: object) -> int:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    result = check_report.main([str(path), "5"])
    assert isinstance(result, int)
    return result


def test_a_good_report_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(tmp_path, report()) == 0
    assert "5 events, nothing missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        "predictions_missing",
        "predictions_duplicated",
        "outcomes_missing",
        "outcomes_duplicated",
        "failed_requests",
        "learned",
        "events",
        "lockstep",
    ],
)
def test_each_promise_is_checked(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(tmp_path, report(**{name: 1 if name != "lockstep" else False})) == 1
    assert f"{name} is " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["rows_different", "rows_stale", "rows_compared"])
def test_parity_is_checked(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(tmp_path, report(feature_parity={**report()["feature_parity"], name: 2})) == 1
    assert f"feature_parity.{name} is 2" in capsys.readouterr().err


def test_a_missing_value_does_not_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(tmp_path, report(feature_parity=None)) == 1
    assert "feature_parity.rows_stale is null, wanted 0" in capsys.readouterr().err


def test_a_file_that_is_no_report_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_report.main([str(tmp_path / "none.json"), "5"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
