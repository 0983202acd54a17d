"""Two pipelines on one Kafka, Redis and Triton at once: neither notices the other."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy.local import Stack
from headrace.demo.run import DemoOptions, run_demo
from headrace.platform.pipelines import load_pipeline
from tests.end_to_end.private_services import PrivateServices

EVENTS = 3_000
NONE_OF = (
    "predictions_missing",
    "predictions_duplicated",
    "outcomes_missing",
    "outcomes_duplicated",
    "failed_requests",
    "degraded_predictions",
    "rejected_records",
)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    found = Stack()
    started = found.start_infrastructure()
    yield found
    if started:
        found.stop()


def demonstrate(pipeline: str, services: PrivateServices, folder: Path) -> dict[str, Any]:
    out = io.StringIO()
    options = DemoOptions(pipeline=pipeline, events=EVENTS, rate=300, gateway=services.gateway, folder=folder)
    status = run_demo(options, Console(file=out, width=100), services)
    assert status == 0, out.getvalue()
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def test_two_pipelines_side_by_side(stack: Stack, tmp_path: Path) -> None:
    """Both replay at once, all twelve services with the same settings but for their ports."""
    names = ("fraud", "clicks")
    state = {"HEADRACE_STATE_DIR": str(tmp_path / "state"), "HEADRACE_ARTIFACTS": str(tmp_path / "artifacts")}
    logs = {name: tmp_path / name for name in names}
    for folder in logs.values():
        folder.mkdir()
    both = {name: PrivateServices(logs[name], state, stack.layout) for name in names}
    with ThreadPoolExecutor(2) as pool:
        started = {name: pool.submit(demonstrate, name, both[name], logs[name]) for name in names}
        reports = {name: one.result() for name, one in started.items()}
    for name, report in reports.items():
        assert report["pipeline"].startswith(f"{name}-demo-")
        assert report["events"] == report["predictions"] == EVENTS, name
        assert {key: report[key] for key in NONE_OF} == dict.fromkeys(NONE_OF, 0), name
        assert report["feature_parity"]["rows_compared"] == EVENTS
        assert report["feature_parity"]["rows_different"] == 0, name
        assert report["learned"] == report["outcomes"] > 0
        assert report["model_versions_served"] >= 2, name
        assert report["fingerprints"]["features"] == f"{load_pipeline(name).features_fingerprint:016x}"
        for service in both[name].ports.operations:
            assert "restart" not in both[name].log(service), (name, service)
    other = {"fraud": reports["clicks"]["pipeline"], "clicks": reports["fraud"]["pipeline"]}
    for name in names:
        for service in both[name].ports.operations:
            assert other[name] not in both[name].log(service), f"{service} of {name} speaks of {other[name]}"
