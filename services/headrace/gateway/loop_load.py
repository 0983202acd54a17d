"""How busy the event loop is, and how long batches are to gather rows for it.

Each batch costs something however few rows it has. While the loop has time, that is no harm, and a row that waits for
others only waits. When it has not, batches of few rows are what it has no time for: it takes in too few rows for larger
ones, and stays there. So the busier it is, the longer a batch gathers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

EVERY_S = 0.02
"""Time between two measurements, in seconds."""

GAIN = 0.3
IDLE_SHARE = 0.8
BUSY_SHARE = 0.98
LONGEST_REST = 1.0


def rest_for(share: float) -> float:
    """How long to gather rows after a batch, as a share of the time that the batch took.

    Args:
        share: of the time that the loop is busy, 0 to 1.
    """
    return LONGEST_REST * min(1.0, max(0.0, (share - IDLE_SHARE) / (BUSY_SHARE - IDLE_SHARE)))


def wanted_s() -> Callable[[], float]:
    """Reads for how long this thread has run or waited for a processor, in seconds.

    A thread that others keep from running is busy all the same. Linux says how long it waited; elsewhere only the time
    that it ran counts. What Linux says there of how long it ran is behind by what it has run since it last slept.
    """
    try:
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        os.pread(file, 128, 0).split()[1]
    except (OSError, IndexError):
        return time.thread_time

    def read() -> float:
        return time.thread_time() + int(os.pread(file, 128, 0).split()[1]) / 1e9

    return read


class LoopLoad:
    """The load of the thread that makes it.

    Args:
        wanted: for how long this thread has run or waited to run, in seconds.
        clock: seconds that only grow.
    """

    def __init__(self, wanted: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._wanted = wanted
        self._clock = clock
        self._since = clock()
        self._before = wanted()
        self._share = 0.0

    @property
    def share(self) -> float:
        """Of the last tenth of a second or so, the share in which there was something to do, 0 to 1."""
        now = self._clock()
        passed_s = now - self._since
        if passed_s >= EVERY_S:
            wanted = self._wanted()
            share = min(1.0, (wanted - self._before) / passed_s)
            # What lies long back counts for nothing.
            gain = min(1.0, GAIN * passed_s / EVERY_S)
            self._share += gain * (share - self._share)
            self._since, self._before = now, wanted
        return self._share

    def rest(self) -> float:
        """How long to gather rows after a batch now, as a share of the time that it took."""
        return rest_for(self.share)
