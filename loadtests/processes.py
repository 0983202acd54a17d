"""Processes under measurement: each on its own cores, with its CPU time and its progress read from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.layout import ROOT
from loadtests.machine import cpu_seconds, on

STOP_S = 20.0
SAMPLE_S = 0.05
WARM = 0.1
"""Share of the records that is handled before the measurement begins."""
TAIL = 0.05
"""Share of the records that may be left when it ends: the last of a run are handled in ever smaller batches."""


class ProcessFailed(Exception):
    """A measured process ended by itself, or makes no progress; the message has the end of its log."""


@dataclass
class Process:
    """A process that runs. `log` has what it says."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise `ProcessFailed` where it has ended."""
        if self.popen.poll() is not None:
            raise ProcessFailed(f"{self.name} ended with {self.popen.returncode}:\n{self.text()}")

    def text(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    cores: frozenset[int],
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Process]:
    """Run a process on these cores while the block runs.

    Args:
        name: for its log and for messages.
        command: program and arguments.
        cores: what it may run on.
        directory: of its log, and its working directory where it writes.
        environment: variables beside this process's own, of which those of Headrace are left out.
    """
    log = directory / f"{name}.log"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")}
    with log.open("wb") as output, on(cores):
        popen = subprocess.Popen(
            list(command),
            env={**inherited, "PYTHONPATH": f"{ROOT}:{ROOT / 'services'}", **(environment or {})},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Process(name, popen, log)
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if popen.poll() is None:
                popen.send_signal(number)
                try:
                    popen.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    continue


def listening(process: Process, port: int, timeout_s: float = STOP_S) -> None:
    """Wait until a process accepts connections on a loopback port.

    Raises:
        ProcessFailed: it has ended, or does not listen in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        process.check()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise ProcessFailed(
                    f"{process.name} does not listen on port {port} after {timeout_s:g} s:\n{process.text()}"
                ) from None
            time.sleep(SAMPLE_S)
        else:
            return


def module(name: str, *arguments: object, python: Path | str = sys.executable) -> list[str]:
    """The command line that runs a module of this repository."""
    return [str(python), "-m", name, *(str(one) for one in arguments)]


def finish(command: Sequence[str], *, cores: frozenset[int], directory: Path, timeout_s: float) -> str:
    """Run a process to its end; returns what it prints.

    Raises:
        ProcessFailed: it fails, or does not end in time.
    """
    log = directory / "finish.log"
    with log.open("wb") as errors, on(cores):
        try:
            done = subprocess.run(
                list(command),
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'services'}"},
                cwd=ROOT,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=timeout_s,
                text=True,
            )
        except subprocess.TimeoutExpired:
            raise ProcessFailed(f"{' '.join(command)} has not ended after {timeout_s:g} s") from None
    if done.returncode:
        said = (log.read_text(errors="replace") + done.stdout)[-4000:]
        raise ProcessFailed(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout


@dataclass(frozen=True)
class Rate:
    """How fast records were handled.

    Attributes:
        records: handled between the first and the last sample that count.
        wall_s: time between them, in seconds.
        cpu_s: CPU time of the processes in between, in seconds.
    """

    records: int
    wall_s: float
    cpu_s: float

    @property
    def by_wall(self) -> float:
        """Records per second."""
        return self.records / self.wall_s

    @property
    def by_cpu(self) -> float:
        """Records per second of CPU time."""
        return self.records / self.cpu_s


async def measure(
    processes: Sequence[Process], handled: Callable[[], Awaitable[int]], total: int, *, most_s: float
) -> Rate:
    """Watch until everything is handled, or the time is over.

    Args:
        processes: whose CPU time counts, with that of those that they have started.
        handled: how many records are handled by now, as Kafka has it.
        total: how many there are.
        most_s: ends a slow run; its rate is that of what was handled, in seconds.

    Raises:
        ProcessFailed: a process ended, or handled too little to tell a rate.
    """
    samples: list[tuple[int, float, float]] = []
    deadline = time.monotonic() + most_s
    while time.monotonic() < deadline:
        for process in processes:
            process.check()
        count = await handled()
        if not samples or count > samples[-1][0]:
            cpu = sum(cpu_seconds(process.popen.pid, children=True) for process in processes)
            samples.append((count, time.monotonic(), cpu))
        if count >= total:
            break
        await asyncio.sleep(SAMPLE_S)
    last = samples[-1][0] if samples else 0
    begin = next((one for one in samples if one[0] >= max(1, WARM * last)), None)
    end = next((one for one in samples if one[0] >= (1 - TAIL) * total), samples[-1] if samples else None)
    if begin is None or end is None or end[0] <= begin[0] or end[2] <= begin[2]:
        said = "\n".join(f"{process.name}:\n{process.text()}" for process in processes)
        raise ProcessFailed(f"{last} of {total} records handled within {most_s:g} s: too few for a rate\n{said}")
    return Rate(end[0] - begin[0], end[1] - begin[1], end[2] - begin[2])
