"""When the event loop is to take in rows rather than work on the next batch. Pure: told the time, it says until when.

Two reasons. A busy loop gathers larger batches, each of which costs less a row (see `loop_load`). And when batches are
full whatever it does, it still has to look at what has arrived: gRPC hands the loop a few calls in a few turns, and
full batches back to back leave it few turns. What is not taken in grows old where admission does not see it, and is let
in when nobody waits for it any more.
"""

from __future__ import annotations

from collections.abc import Callable

LONGEST_S = 0.02
"""However long a batch took, no row waits longer than this for others."""

LOOK_S = 0.001
"""Time between two looks whether the loop has taken in what has arrived, in seconds; what its timers can tell."""

SLEPT_S = 0.0002
"""It has, when it had nothing to do for so long between two looks."""

INTAKE_SHARE = 1.0
"""At most for this share of the time that the last batch took: or all that is done might be to take in calls and refuse
them."""

LONGEST_INTAKE_S = 0.1


class LoopRest:
    """Says until when the next batch waits.

    Args:
        share: how long to gather rows after a batch that was not full, as a share of the time that it took.
        wanted: for how long the loop's thread has run or waited to run, in seconds; None where that is not known.
    """

    def __init__(self, share: Callable[[], float], wanted: Callable[[], float] | None = None) -> None:
        self._share = share
        self._wanted = wanted
        self._until = 0.0
        self._latest = 0.0
        self._looked_at = 0.0
        self._wanted_then = 0.0

    def ended(self, now: float, took_s: float) -> None:
        """A batch has ended after so many seconds."""
        self._until = now + min(LONGEST_S, self._share() * took_s)
        self._latest = now + min(LONGEST_INTAKE_S, INTAKE_SHARE * took_s)
        self._look(now)

    def waited(self, since: float) -> bool:
        """Whether rows that came at a time were there during the last rest."""
        return since < self._until

    def until(self, now: float, *, full: bool) -> float:
        """When the next batch may begin, in the time of the loop; it is to be asked again then.

        Args:
            now: the time.
            full: whether a full batch waits, which gets no larger.
        """
        if not full:
            return self._until
        if self._wanted is None or now >= self._latest:
            return now
        if now < self._looked_at + LOOK_S:
            return self._looked_at + LOOK_S
        if now - self._looked_at - (self._wanted() - self._wanted_then) >= SLEPT_S:
            self._latest = now
            return now
        self._look(now)
        return now + LOOK_S

    def _look(self, now: float) -> None:
        self._looked_at = now
        if self._wanted is not None:
            self._wanted_then = self._wanted()
