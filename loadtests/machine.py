"""The machine that a benchmark runs on: its name for the record, and which of its cores a process may use."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cores:
    """How the cores are shared out: what is measured has one of its own, where there are two.

    Attributes:
        measured: cores of the first measured process.
        second: cores of a second one.
        rest: cores of everything else: broker, Redis, the driver.
    """

    measured: frozenset[int]
    second: frozenset[int]
    rest: frozenset[int]

    @property
    def scale(self) -> bool:
        """Whether a second measured process has a core that it does not share."""
        return not self.second & self.rest


def share_cores() -> Cores:
    """Share out the cores that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) == 1:
        one = frozenset(usable)
        return Cores(one, one, one)
    first, second, others = usable[0], usable[1], usable[2:]
    return Cores(frozenset({first}), frozenset({second}), frozenset(others or [second]))


@contextmanager
def on(cores: frozenset[int]) -> Iterator[None]:
    """Within the block this process and what it starts run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe(packages: Sequence[str] = ()) -> list[str]:
    """Lines that say what this machine is and how busy it was: model, cores, memory, load, versions.

    Args:
        packages: distributions of this environment whose versions matter.
    """
    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    return [
        f"machine: {_model()}, {cores} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}",
        f"load average before: {load}",
        f"versions: Python {platform.python_version()}" + "".join(f", {name} {_version(name)}" for name in packages),
    ]


def cpu_seconds(process_id: int, *, children: bool = False) -> float:
    """CPU time of a process so far, user and system, all of its threads, in seconds.

    Args:
        process_id: of the process.
        children: whether the processes that it has started and that still run count too.

    Raises:
        ProcessLookupError: it has ended.
    """
    fields = _stat(process_id)
    own = (int(fields[11]) + int(fields[12])) * TICK_S
    return own + (sum(cpu_seconds(one, children=True) for one in _children(process_id)) if children else 0.0)


def resident_bytes(process_id: int, *, children: bool = False) -> int:
    """Memory of a process that is in RAM, in bytes, as the kernel counts it: what several share counts for each.

    Args:
        process_id: of the process.
        children: whether the processes that it has started and that still run count too.

    Raises:
        ProcessLookupError: it has ended.
    """
    own = int(_stat(process_id)[21]) * os.sysconf("SC_PAGE_SIZE")
    return own + (sum(resident_bytes(one, children=True) for one in _children(process_id)) if children else 0)


def _stat(process_id: int) -> list[str]:
    """What the kernel says of a process, from its state on (the third field of proc(5))."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(process_id) from None


def _children(process_id: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process_id}/task").glob("*/children"):
        found += [int(one) for one in task.read_text().split()]
    return found


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
