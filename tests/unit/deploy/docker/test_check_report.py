"""The check of the compose stack's report says what does not hold."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.docker.check_report import broken_promises, main

ZEROS = ("predictions_missing", "predictions_duplicated", "outcomes_missing", "outcomes_duplicated", "failed_requests")


def report(**changed: object) -> dict[str, Any]:
    counts = dict.fromkeys(("events", "predictions", "labels", "outcomes"), 5)
    parity = {"rows_compared": 5, "rows_different": 0, "rows_stale": 3}
    return {**counts, **dict.fromkeys(ZEROS, 0), "model_versions_served": 2, "feature_parity": parity, **changed}


def test_a_report_that_holds() -> None:
    assert broken_promises(report(), 5) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"predictions_missing": 1}, "predictions_missing is 1, wanted 0"),
        ({"outcomes": 4}, "outcomes is 4, wanted 5"),
        ({"failed_requests": None}, "failed_requests is null, wanted 0"),
        ({"feature_parity": {"rows_compared": 5, "rows_different": 2}}, "feature_parity.rows_different is 2, wanted 0"),
        ({"model_versions_served": 1}, "model_versions_served is 1, wanted at least 2"),
    ],
)
def test_what_does_not_hold_is_named(changed: dict[str, Any], said: str) -> None:
    assert broken_promises(report(**changed), 5) == [said]


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    assert main([str(path), "5"]) == 1
    assert "is not a report" in capsys.readouterr().err
    path.write_text(json.dumps(report()))
    assert main([str(path), "5"]) == 0
    assert main([str(path), "6"]) == 1
    assert "events is 5, wanted 6" in capsys.readouterr().err
