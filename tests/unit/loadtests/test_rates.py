"""Rates are measured between records that were handled, with the CPU time of the process that handled them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loadtests.machine import cpu_seconds, describe, share_cores
from loadtests.processes import ProcessFailed, measure, running

BUSY = "while True: sum(range(10_000))"


def test_cores_are_shared_out_of_those_that_may_be_used() -> None:
    cores = share_cores()
    assert cores.measured
    assert cores.second
    assert cores.rest


def test_the_machine_is_named() -> None:
    lines = describe(["numpy", "no-such-package"])
    assert any(line.startswith("load average before: ") for line in lines)
    assert "no-such-package not installed" in lines[-1]


def test_an_ended_process_has_no_cpu_time() -> None:
    with pytest.raises(ProcessLookupError):
        cpu_seconds(2**22 + 1)


async def test_a_rate_leaves_out_how_it_begins_and_ends(tmp_path: Path) -> None:
    counts = iter(range(0, 2000, 100))

    async def handled() -> int:
        return next(counts)

    with running("busy", [sys.executable, "-c", BUSY], cores=share_cores().measured, directory=tmp_path) as process:
        rate = await measure([process], handled, 1000, most_s=20)
    assert rate.records == 900
    assert 0 < rate.cpu_s <= rate.wall_s + 0.05
    assert process.popen.poll() is not None


async def test_a_process_that_ends_by_itself_is_reported_with_what_it_said(tmp_path: Path) -> None:
    async def handled() -> int:
        return 0

    command = [sys.executable, "-c", "raise SystemExit('no broker')"]
    with (
        pytest.raises(ProcessFailed, match="no broker"),
        running("failing", command, cores=share_cores().measured, directory=tmp_path) as process,
    ):
        await measure([process], handled, 1, most_s=20)
