"""The main job, whole: a small demonstration on the real stack gives a report in which nothing is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".run" / "demo"
EVENTS = 5_000
NONE_OF = (
    "predictions_missing",
    "predictions_duplicated",
    "outcomes_missing",
    "outcomes_duplicated",
    "failed_requests",
    "rejected_records",
)

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("stack")]


def demo(*options: str, events: int = EVENTS) -> dict[str, Any]:
    """Run a demonstration on the stack that is up, and check what every report must show."""
    command = [sys.executable, "-m", "headrace.cli", "demo", "run", "--events", str(events), "--keep", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report: dict[str, Any] = json.loads((FOLDER / "report.json").read_text())
    assert report["events"] == report["predictions"] == events
    assert report["outcomes"] + report["outcomes_open"] == events
    assert report["learned"] == report["outcomes"]
    assert {name: report[name] for name in NONE_OF} == dict.fromkeys(NONE_OF, 0)
    parity = report["feature_parity"]
    assert (parity["rows_compared"], parity["rows_different"]) == (events, 0)
    return report


def test_a_flowing_demo_serves_versions_and_reports() -> None:
    report = demo("--rate", "400")
    assert report["labels"] == report["outcomes"] == EVENTS
    assert report["feature_parity"]["max_abs_error"] == 0.0
    assert report["model_versions_served"] >= 3
    assert report["quality_by_season"][0]["version"] == 0, "the system answers before the first label arrives"
    assert report["latency_ms"]["grpc"]["p50"] > 0
    assert report["label_to_traffic_seconds"]["p50"] > 0
    assert f"Replay of {EVENTS:,} payments" in (FOLDER / "report.html").read_text()


def test_a_pipeline_of_another_kind_goes_the_same_way() -> None:
    report = demo("--pipeline", "clicks", "--rate", "400", events=2_000)
    assert report["pipeline"].startswith("clicks-demo-")
    assert 0 < report["labels"] < 200, "what is not clicked has no label, and expires"
    assert report["outcomes_open"] < 300
    assert report["feature_parity"]["max_abs_error"] < 1e-6
    page = (FOLDER / "report.html").read_text().split("<body>")[1]
    assert "Replay of 2,000 impressions" in page
    assert "payment" not in page


def test_two_lockstep_demos_give_the_same_to_the_last_digit() -> None:
    first, second = demo("--lockstep"), demo("--lockstep")
    assert first["pipeline"] != second["pipeline"], "each has a namespace of its own"
    assert first["feature_parity"]["rows_stale"] == second["feature_parity"]["rows_stale"] == 0
    for name in ("quality", "quality_by_season", "model_versions_published", "model_versions_served"):
        assert first[name] == second[name], name
