"""Keeps a server that is away from costing a timeout per call. Pure."""

from __future__ import annotations

from collections.abc import Callable


class CircuitBreaker:
    """Open after a failure: nothing is tried for a while, then one call may find out.

    Args:
        rest_s: how long nothing is tried after a failure, in seconds.
        clock: monotonic seconds.
    """

    def __init__(self, rest_s: float, clock: Callable[[], float]) -> None:
        self._rest_s = rest_s
        self._clock = clock
        self._closed_again_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the last call failed and none has succeeded since."""
        return self._closed_again_at is not None

    def allows(self) -> bool:
        """Whether a call may be made now; where it is the one that finds out, others must wait for the next turn."""
        if self._closed_again_at is None:
            return True
        now = self._clock()
        if now < self._closed_again_at:
            return False
        self._closed_again_at = now + self._rest_s
        return True

    def succeeded(self) -> None:
        """A call succeeded."""
        self._closed_again_at = None

    def failed(self) -> None:
        """A call failed."""
        self._closed_again_at = self._clock() + self._rest_s
