"""How long a broken stream looks for a gateway, and how often. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable

INITIAL_S = 0.05
LONGEST_S = 1.0
RECONNECT_FOR_S = 30.0


class Patience:
    """Pauses between connections, which grow until something is answered.

    Args:
        for_s: how long to go on without any answer, in seconds.
        clock: in seconds.
    """

    def __init__(self, for_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._for_s = for_s
        self._clock = clock
        self._failures = 0
        self._since: float | None = None

    def answered(self) -> None:
        """The gateway has answered."""
        self._failures = 0
        self._since = None

    def left(self) -> bool:
        """Whether to go on, after a connection that broke."""
        now = self._clock()
        if self._since is None:
            self._since = now
        self._failures += 1
        return now - self._since < self._for_s

    def pause_s(self, part: float) -> float:
        """How long to wait before the next connection, in seconds.

        Args:
            part: random, 0 to 1: clients that lost the same gateway should not come back at once.
        """
        longest = min(LONGEST_S, INITIAL_S * 2.0 ** max(0, self._failures - 1))
        return longest * (0.5 + part / 2)
