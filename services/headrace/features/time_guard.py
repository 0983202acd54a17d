"""Which event times a partition accepts: no leap ahead that nothing confirms, nothing older than what is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

Verdict = Literal["accept", "late", "leap", "future", "too_late"]
"""Accepted; accepted, though windows at its time may be incomplete; set aside as a leap that nothing confirms yet, as
ahead of what a live record may hold, as older than any window reaches.
"""

LIVE_TOLERANCE = 3_600_000_000
"""How far ahead of its record an event of a live pipeline may lie, in microseconds: brokers allow as much."""


@dataclass(frozen=True, slots=True)
class TimeBounds:
    """What a pipeline allows, in microseconds.

    Attributes:
        lateness: an event further behind than this is late: what its own windows need may be gone.
        retention: an event further behind than this is too late: no window that is still to come reaches it.
        max_jump: largest step ahead that needs no confirmation.
        live: whether event times may not lie ahead of the time at which their records were produced.
    """

    lateness: int
    retention: int
    max_jump: int
    live: bool = False


@dataclass(frozen=True, slots=True)
class TimeGuard:
    """Where the event time of one partition of `events` stands.

    Its decisions depend on nothing but the records of the partition, in order. So a worker that starts again from a
    stored guard and the offset that it was stored with decides the same about every event.

    Attributes:
        highest: highest event time accepted, in microseconds; 0 before the first event.
        leap: time of a leap ahead that was set aside, waiting for its successor to confirm it; 0 for none.
        produced: when the record of the highest event was produced, in microseconds; 0 where nothing says.
        single: whether `highest` rests on the partition's first event alone, which no second one has confirmed.
    """

    highest: int = 0
    leap: int = 0
    produced: int = 0
    single: bool = False

    @property
    def confirmed(self) -> int:
        """Highest event time that more than one event stands for, in microseconds; 0 for none."""
        return 0 if self.single else self.highest

    def decide(self, time: int, produced: int, bounds: TimeBounds) -> tuple[Verdict, TimeGuard]:
        """Whether an event is accepted, and the guard after it.

        An event further ahead than `max_jump`, and than its record was produced after the one of the highest event, is
        set aside ("leap") rather than move the watermark; when the next event of the partition is as far ahead, the
        leap was real, and that one is accepted. The first event of a partition is accepted whatever its time, but the
        partition stands at the lower of the first two until one of them is confirmed. An event behind by more than
        `lateness` is "late", by more than `retention` "too_late". In a live pipeline an event that lies over an hour
        ahead of its own record is "future", whatever its neighbours say.

        Args:
            time: event time in microseconds.
            produced: Kafka timestamp of its record in microseconds; 0 or less for none.
            bounds: what the pipeline allows.
        """
        if bounds.live and produced > 0 and time > produced + LIVE_TOLERANCE:
            return "future", self
        if not self.highest:
            return "accept", TimeGuard(time, 0, produced, True)
        ahead = time > self.highest + bounds.max_jump + self._elapsed(produced)
        back = self.single and time < self.highest - bounds.max_jump
        if (ahead or back) and self.leap and abs(time - self.leap) <= bounds.max_jump:
            return "accept", TimeGuard(time, 0, produced)
        if ahead:
            return "leap", replace(self, leap=time)
        if back:
            return "accept", TimeGuard(time, self.highest, produced, True)
        if time < self.highest - max(bounds.retention, bounds.lateness):
            return "too_late", replace(self, leap=0)
        verdict: Verdict = "late" if time < self.highest - bounds.lateness else "accept"
        if time > self.highest:
            return verdict, TimeGuard(time, 0, produced)
        return verdict, TimeGuard(self.highest, 0, self.produced)

    def accept_run(
        self, times: npt.NDArray[np.int64], produced: npt.NDArray[np.int64], bounds: TimeBounds
    ) -> tuple[int, TimeGuard]:
        """How many leading events are plainly in order, and the guard after them: as `decide` says of each, but fast.

        What comes next is for `decide`: it may be accepted too, where only its production time or an earlier leap
        confirms it.

        Args:
            times: event times in microseconds, shape (n,).
            produced: Kafka timestamps of their records in microseconds, shape (n,).
            bounds: what the pipeline allows.
        """
        if not self.highest or self.single or not len(times):
            return 0, self
        reached = np.maximum.accumulate(np.maximum(times, self.highest))
        before = np.empty_like(reached)
        before[0], before[1:] = self.highest, reached[:-1]
        ahead = times - before
        plain = (ahead <= bounds.max_jump) & (ahead >= -bounds.lateness)
        if bounds.live:
            plain &= (produced <= 0) | (times <= produced + LIVE_TOLERANCE)
        count = len(times) if plain.all() else int(plain.argmin())
        if not count:
            return 0, self
        # The first event that reached the highest time says when that was produced.
        first = int(np.searchsorted(reached[:count], reached[count - 1]))
        at = int(produced[first]) if ahead[first] > 0 else self.produced
        return count, TimeGuard(int(reached[count - 1]), 0, at)

    def _elapsed(self, produced: int) -> int:
        """How long after the record of the highest event this one was produced, in microseconds."""
        return max(produced - self.produced, 0) if produced > 0 and self.produced > 0 else 0

    def encode(self) -> str:
        """As text, for Redis and for commit metadata."""
        return f"{self.highest}:{self.leap}:{self.produced}:{int(self.single)}"

    @staticmethod
    def decode(text: str) -> TimeGuard:
        """From `encode`; a fresh guard from the empty string.

        Raises:
            ValueError: the text is something else.
        """
        if not text:
            return TimeGuard()
        highest, leap, *later = (int(part) for part in text.split(":"))
        if not later:  # as written before production times were kept
            return TimeGuard(highest, leap)
        produced, single = later
        return TimeGuard(highest, leap, produced, bool(single))
