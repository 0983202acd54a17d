"""A demonstration during which one process is killed: it is restarted, and the report shows nothing of it.

Minutes long, so not part of `make test`: `make test-chaos`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from deploy.local import Stack, StackError

ROOT = Path(__file__).resolve().parents[2]
EVENTS = 15_000
RATE = 500
VICTIMS = ("features", "gateway", "outcomes", "learner", "rollout", "monitor", "triton", "kafka")
PROMISES = (
    "predictions_missing",
    "predictions_duplicated",
    "outcomes_missing",
    "outcomes_duplicated",
    "failed_requests",
)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    found = Stack()
    found.start_infrastructure()
    yield found
    found.stop()


def process_id(stack: Stack, name: str) -> int | None:
    try:
        return stack.process_id(name)
    except StackError:
        return None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_missing_or_doubled_after_a_kill(stack: Stack, victim: str, tmp_path: Path) -> None:
    """Kill one process at a quarter, half (while the gRPC calls go) and three quarters of the replay."""
    log = tmp_path / "demo.log"
    report_path = ROOT / ".run/demo/report.json"
    report_path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "headrace.cli", "demo", "run", "--keep"]
    options = ["--events", str(EVENTS), "--rate", str(RATE)]
    with log.open("w") as output:
        demo = subprocess.Popen(command + options, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait(lambda: "replaying" in log.read_text(), demo, log, 120)
        began, killed = time.monotonic(), 0
        for share in (0.25, 0.5, 0.75):
            wait(partial(passed, began + share * EVENTS / RATE), demo, log, 120)
            before = process_id(stack, victim)
            if before is None:
                continue
            subprocess.run(["kill", "-9", str(before)], check=True)
            killed += 1
            wait(partial(restarted, stack, victim, before), demo, log, 60)
        assert killed >= 2, log.read_text()
        assert demo.wait(timeout=400) == 0, log.read_text()[-4000:]
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait(timeout=30)
    report = json.loads(report_path.read_text())
    assert {name: report[name] for name in PROMISES} == dict.fromkeys(PROMISES, 0)
    assert report["feature_parity"]["rows_different"] == 0
    for name in ("events", "predictions", "labels", "outcomes", "learned"):
        assert report[name] == EVENTS, name


def passed(moment: float) -> bool:
    return time.monotonic() >= moment


def restarted(stack: Stack, name: str, before: int) -> bool:
    return process_id(stack, name) not in {None, before}


def wait(condition: Callable[[], bool], demo: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Wait for a condition while the demonstration runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert demo.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.05)
