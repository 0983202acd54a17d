"""How long calls take, learned from calls: their time by rows, and how many run at once without hurting one another."""

from __future__ import annotations

GAIN = 1 / 16
"""Weight of the newest measurement."""

CLEAR_GAIN = 1 / 4
CLEAR = 0.75
"""A call that found the server free much sooner than expected, by this share, counts more: that is no noise."""

TOO_LOW = 1.3
"""What a call occupied the server for, as a multiple of its time, is more than noise from here."""

OUTLIER = 4.0
"""A call that took more than this many times the estimate counts as this many times: one pause is not a trend."""


class ServiceTime:
    """Time of a call as a line over its rows, `a + b * rows`, by least squares with weights that fade.

    The recursive form keeps the weighted means, the variance of the rows and their covariance with the time; see
    Finch, "Incremental calculation of weighted mean and variance" (2009). The line is held to a >= 0 and b >= 0.

    Example:
        >>> time = ServiceTime()
        >>> for rows in (1, 100, 50, 200, 10):
        ...     time.add(rows, 0.001 + rows * 1e-5)
        >>> round(time.of(300), 6)
        0.004
    """

    __slots__ = ("_covariance", "_rows", "_slope", "_time", "_variance", "calls", "deviation_s")

    def __init__(self) -> None:
        self.calls = 0
        """Calls measured so far."""
        self.deviation_s = 0.0
        """Mean distance of calls from their estimate, in seconds."""
        self._rows = 0.0
        self._time = 0.0
        self._variance = 0.0
        self._covariance = 0.0
        self._slope = 0.0

    def add(self, rows: int, took_s: float) -> None:
        """Learn from a call.

        Args:
            rows: how many it had.
            took_s: how long it took when nothing else was under way, in seconds.
        """
        self.calls += 1
        # The first calls count alike.
        gain = max(GAIN, 1 / self.calls)
        if self.calls > 1:
            expected = self.of(rows)
            if expected > 0:
                took_s = min(took_s, OUTLIER * expected)
            self.deviation_s += gain * (abs(took_s - expected) - self.deviation_s)
        more_rows, more_time = rows - self._rows, took_s - self._time
        self._rows += gain * more_rows
        self._time += gain * more_time
        self._variance = (1 - gain) * (self._variance + gain * more_rows * more_rows)
        self._covariance = (1 - gain) * (self._covariance + gain * more_rows * more_time)
        # Batches of one size say nothing about the slope.
        if self._variance > 1e-6 * self._rows * self._rows:
            self._slope = min(max(self._covariance / self._variance, 0.0), self._time / self._rows)
        else:
            self._slope = 0.0

    def of(self, rows: int) -> float:
        """How long a call of so many rows takes, in seconds; 0 before the first was measured."""
        return max(0.0, self._time + self._slope * (rows - self._rows))

    def at_least(self, rows: int) -> float:
        """What a call of so many rows hardly ever takes less than, in seconds: twice the deviation below."""
        return max(0.0, self.of(rows) - 2 * self.deviation_s)


class Spacing:
    """How far apart calls to one server should begin, as a share of the time of a call alone.

    1 for a server that does one call at a time, 1/2 for one that does two, and between them where sending and
    receiving overlap with the work. Taken from what a call waited behind the one before it: in a queue with one server
    a call waits what the call before it waited, and occupied the server for, less the gap between them (Lindley's
    recursion). So `occupied = gap + wait - wait before`.

    Args:
        least: lower bound: one divided by the calls that may be under way.
    """

    __slots__ = ("_least", "_samples", "share")

    NOISE = 0.1
    """A wait below this share of the time of a call, or below twice its deviation, is no wait."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._samples = 0
        self.share = least

    def add(self, gap_s: float, wait_s: float, wait_before_s: float, before_s: float, deviation_s: float) -> bool:
        """Learn from a call that began while another was under way.

        Args:
            gap_s: how long after the call before it this one began.
            wait_s: how much longer it took than alone.
            wait_before_s: the same of the call before it.
            before_s: time of the call before it, alone.
            deviation_s: how far times of calls are from their estimate.

        Returns:
            Whether the time of a call must have been estimated too low: it occupied the server for longer.
        """
        if before_s <= 0:
            return True
        if wait_s <= max(self.NOISE * before_s, 2 * deviation_s):
            # No wait: the server was free again by then, at the latest.
            sample = (gap_s - wait_before_s) / before_s
            if sample >= self.share:
                return False
            # Far below, it says more than noise can.
            gain = CLEAR_GAIN if sample < CLEAR * self.share else GAIN
        else:
            sample, gain = (gap_s + wait_s - wait_before_s) / before_s, GAIN
        # The first ones count alike, from a start that knows nothing.
        self._samples += 1
        gain = max(gain, 1 / self._samples)
        self.share += gain * (min(max(sample, 0.0), 2.0) - self.share)
        self.share = min(max(self.share, self._least), 1.0)
        return sample > TOO_LOW and self.share == 1.0
