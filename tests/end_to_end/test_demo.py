"""The main job, whole: a small demonstration on the real stack gives a report in which nothing is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVENTS = 6_000


@pytest.mark.timeout(240)
@pytest.mark.parametrize("lockstep", [False, True], ids=["flowing", "lockstep"])
def test_a_small_demo(stack: object, lockstep: bool) -> None:
    command = [sys.executable, "-m", "headrace.cli", "demo", "run", "--events", str(EVENTS), "--keep", "--rate", "400"]
    done = subprocess.run(
        command + ["--lockstep"] * lockstep, cwd=ROOT, capture_output=True, text=True, timeout=220, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads((ROOT / ".run/demo/report.json").read_text())
    for name in ("events", "predictions", "labels", "outcomes", "learned"):
        assert report[name] == EVENTS, name
    for name in (
        "predictions_missing",
        "predictions_duplicated",
        "outcomes_missing",
        "outcomes_duplicated",
        "failed_requests",
        "rejected_records",
    ):
        assert report[name] == 0, name
    assert report["feature_parity"]["rows_compared"] == EVENTS
    assert report["feature_parity"]["rows_different"] == 0
    assert report["feature_parity"]["rows_stale"] == 0 or not lockstep
    assert report["model_versions_served"] >= 3
    assert report["latency_ms"]["grpc"]["p50"] > 0
    page = (ROOT / ".run/demo/report.html").read_text()
    assert "Replay of 6,000 payments" in page
