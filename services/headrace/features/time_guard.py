"""Which event times a partition accepts: no leap ahead that nothing confirms, nothing older than what is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Verdict = Literal["accept", "future", "too_late"]


@dataclass(frozen=True, slots=True)
class TimeGuard:
    """Where the event time of one partition of `events` stands.

    Its decisions depend on nothing but the events of the partition, in order. So a worker that starts again from a
    stored guard and the offset that it was stored with decides the same about every event.

    Attributes:
        highest: highest event time accepted, in microseconds; 0 before the first event.
        leap: time of a leap ahead that was set aside, waiting for its successor to confirm it; 0 for none.
    """

    highest: int = 0
    leap: int = 0

    def decide(self, time: int, *, lateness: int, max_jump: int) -> tuple[Verdict, TimeGuard]:
        """Whether an event is accepted, and the guard after it.

        One event further ahead than `max_jump` is set aside ("future") rather than move the watermark; when the next
        event of the partition is as far ahead, the leap was real, and that one is accepted. An event further back than
        `lateness` is "too_late": what its windows need may be gone.

        Args:
            time: event time in microseconds.
            lateness: how far events may come out of order, in microseconds.
            max_jump: largest unconfirmed step ahead, in microseconds.
        """
        if self.highest and time > self.highest + max_jump:
            if self.leap and abs(time - self.leap) <= max_jump:
                return "accept", TimeGuard(time)
            return "future", replace(self, leap=time)
        if time < self.highest - lateness:
            return "too_late", replace(self, leap=0)
        return "accept", TimeGuard(max(time, self.highest))

    def encode(self) -> str:
        """As text, for Redis and for commit metadata."""
        return f"{self.highest}:{self.leap}"

    @staticmethod
    def decode(text: str) -> TimeGuard:
        """From `encode`; a fresh guard from the empty string.

        Raises:
            ValueError: the text is something else.
        """
        if not text:
            return TimeGuard()
        highest, leap = text.split(":")
        return TimeGuard(int(highest), int(leap))
