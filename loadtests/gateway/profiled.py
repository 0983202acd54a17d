"""Runs a `headrace` command under a profiler, and writes what it found when the command ends (SIGTERM included).

`python -m loadtests.gateway.profiled calls|samples FILE run gateway`

`calls` counts every call with cProfile: FILE.pstats for `python -m pstats` or snakeviz, and the top of it as FILE.txt.
It makes calls dearer than they are. `samples` looks at the main thread's stack every millisecond of CPU time: FILE.txt
has the lines that were found at the top and anywhere, FILE.folded the stacks for flamegraph.pl or speedscope.
"""

from __future__ import annotations

import cProfile
import io
import pstats
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from headrace.cli.__main__ import main

SAMPLE_S = 0.001
TOP = 60
Stack = tuple[str, ...]


class Samples:
    """Stacks of the main thread, by CPU time."""

    def __init__(self) -> None:
        self.stacks: Counter[Stack] = Counter()

    def start(self) -> None:
        """Begin to sample."""
        signal.signal(signal.SIGPROF, self._take)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)

    def stop(self) -> None:
        """End it."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _take(self, number: int, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            code = frame.f_code
            stack.append(f"{_short(code.co_filename)}:{code.co_qualname}:{frame.f_lineno}")
            frame = frame.f_back
        # What it costs to start is another question.
        if not any("_find_and_load" in entry for entry in stack):
            self.stacks[tuple(reversed(stack))] += 1

    def write(self, file: Path) -> None:
        """Write the folded stacks and the tables."""
        total = sum(self.stacks.values()) or 1
        folded = [f"{';'.join(stack)} {count}" for stack, count in self.stacks.most_common()]
        Path(f"{file}.folded").write_text("\n".join(folded) + "\n", encoding="utf-8")
        lines, functions, within = Counter[str](), Counter[str](), Counter[str]()
        for stack, count in self.stacks.items():
            lines[stack[-1]] += count
            functions[stack[-1].rpartition(":")[0]] += count
            for one in {entry.rpartition(":")[0] for entry in stack}:
                within[one] += count
        text = [f"{total} samples"]
        for title, found in (("at the top, by function", functions), ("by line", lines), ("anywhere", within)):
            text += ["", title, *(f"{count / total:7.2%}  {name}" for name, count in found.most_common(TOP))]
        Path(f"{file}.txt").write_text("\n".join(text) + "\n", encoding="utf-8")


def _short(path: str) -> str:
    for mark in ("site-packages/", "services/"):
        if mark in path:
            return path.partition(mark)[2]
    return Path(path).name


def _calls(file: Path, arguments: list[str]) -> None:
    # The main thread's CPU time: what it waits for, and who else runs on the machine, is not the question.
    profile = cProfile.Profile(time.thread_time)
    try:
        profile.runcall(main, arguments)
    finally:
        profile.dump_stats(f"{file}.pstats")
        text = io.StringIO()
        stats = pstats.Stats(profile, stream=text)
        stats.sort_stats("tottime").print_stats(TOP)
        stats.sort_stats("cumulative").print_stats(TOP)
        Path(f"{file}.txt").write_text(text.getvalue(), encoding="utf-8")


def _samples(file: Path, arguments: list[str]) -> None:
    samples = Samples()
    samples.start()
    try:
        main(arguments)
    finally:
        samples.stop()
        samples.write(file)


if __name__ == "__main__":
    {"calls": _calls, "samples": _samples}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3:])
