"""The event time that the predictions of one partition have reached. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AnswerClock:
    """Highest event time among the predictions of one partition, told apart from single leaps ahead.

    It depends on nothing but the predictions of the partition, in log order, so that whoever reads them again from a
    stored clock, or from the beginning, has the same time at the same prediction. It refuses nothing: a prediction
    far ahead is joined like any other; it only does not move the time until the next one confirms it.

    Attributes:
        highest_us: highest confirmed event time in microseconds since 1970-01-01 UTC; 0 before the first prediction.
        leap_us: event time of a leap ahead that waits to be confirmed; 0 for none.
    """

    highest_us: int = 0
    leap_us: int = 0

    def after(self, time_us: int, *, max_jump_us: int) -> AnswerClock:
        """The clock after one more prediction.

        Args:
            time_us: its event time in microseconds.
            max_jump_us: largest step ahead in microseconds that needs no confirmation.
        """
        highest, leap = self.highest_us, self.leap_us
        if highest and time_us > highest + max_jump_us:
            if leap and abs(time_us - leap) <= max_jump_us:
                return AnswerClock(time_us)
            return AnswerClock(highest, time_us)
        if time_us > highest:
            return AnswerClock(time_us)
        return AnswerClock(highest) if leap else self

    def watermark_us(self, lateness_us: int) -> int:
        """Event time before which no more predictions are expected; 0 before the first prediction."""
        return max(0, self.highest_us - lateness_us)
