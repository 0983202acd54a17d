"""Whom to let in when more comes than can be answered, and when to tell the others to come back.

Pure: no clock but the one it is given. Three questions are asked before a request is queued:

1. Has this caller asked for more rows than its quota? A token bucket per caller: so many rows a second, and a burst.
2. Is the queue a burst or a standing queue? As in CoDel (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10,
   2012; RFC 8289): a standing queue is one whose oldest row has waited longer than the target each time that a batch
   left, for a whole interval. Length says nothing: a thousand rows are nothing to a fast server.
3. May this request wait as long as it would have to? The wait is what is queued by the rate at which rows leave. A
   burst may wait the interval; in a standing queue, the target. These two limits are from Facebook's form of CoDel for
   servers (Maurer, "Fail at Scale", ACM Queue 13, 2015), which drops when a request leaves the queue; here it never
   enters, so that its caller hears at once. CoDel's own law, drops at growing rates, is for senders that slow down by
   themselves, and would take minutes to find a threefold overload.

Hysteresis: the standing queue is over when nobody had to be refused for an interval. STREAM may wait half as long, so
it is refused first.

How to wire it: make one `Admission` for the process over the batcher that requests wait in; call `left` from that
batcher's `observe`; call `admit` before `Batcher.submit`, once for a request, with all of its rows. Call `turn_away`
as early as a call is known to have come; whoever cannot do without it calls `admit` only. For rows that come
from Kafka there is nobody to refuse: their reader asks for less by itself, so do not call it for them.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Callable

from headrace.gateway.batch_queues import Priority
from headrace.gateway.errors import OverloadedError

LONGEST_RETRY_S = 10.0
GAIN = 1 / 8
STRETCH = 4
"""A call may wait this many times as long as its own rows take."""


class ClientQuotas:
    """A token bucket per caller.

    Args:
        rows_per_s: rows that a caller may ask for in the long run; 0 for no quota.
        burst_rows: rows that it may ask for at once after a pause. A request of more rows than that passes when the
            bucket is full, and the bucket then owes them.
        max_callers: callers that are remembered; beyond it the one that has been silent longest is forgotten, and would
            start with a full bucket.
        clock: seconds that only grow.
    """

    def __init__(self, rows_per_s: float, burst_rows: float, max_callers: int, clock: Callable[[], float]) -> None:
        self._rows_per_s = rows_per_s
        self._burst = max(burst_rows, 1.0)
        self._max_callers = max_callers
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Callers remembered."""
        return len(self._buckets)

    def take(self, caller: str, rows: int, rows_per_s: float | None = None) -> float:
        """Take rows out of a caller's bucket.

        Args:
            caller: its name.
            rows: how many.
            rows_per_s: that this caller may ask for; None for what all may.

        Returns:
            0 where it had them; else nothing was taken, and it will have them in so many seconds.
        """
        rate = self._rows_per_s if rows_per_s is None else rows_per_s
        if not rate:
            return 0.0
        now = self._clock()
        tokens, since = self._buckets.pop(caller, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * rate)
        needed = min(float(rows), self._burst)
        # What is owed by rounding is no reason to wait.
        missing = needed - tokens - 1e-9
        if missing <= 0:
            tokens -= rows
        self._buckets[caller] = (tokens, now)
        if len(self._buckets) > self._max_callers:
            self._buckets.popitem(last=False)
        return max(0.0, missing / rate)


class Admission:
    """Decides whether a request may enter.

    Args:
        queued_rows: rows that wait now: the batcher's `queued_rows`.
        oldest_wait_s: how long the oldest of them has waited, in seconds: the batcher's `oldest_wait_s`.
        clock: seconds that only grow, the event loop's time.
        target_s: how long rows may wait in a standing queue, in seconds. Never taken as less than twice the time
            between two batches: what waits for the next batch is no standing queue.
        interval_s: for how long the wait must be above the target, in seconds, and how long a burst may wait.
        quotas: of the callers; None for none.
        batch_rows: rows of a full batch. Rows that all fit into the next one are no queue, however slow batches of
            few rows make them look: the more rows a batch has, the faster they leave.
        spread: from 0 to 1, at random: so that those who were refused together do not come back together.
    """

    def __init__(
        self,
        queued_rows: Callable[[], int],
        oldest_wait_s: Callable[[], float],
        clock: Callable[[], float],
        *,
        target_s: float,
        interval_s: float,
        quotas: ClientQuotas | None = None,
        batch_rows: int = 0,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self._queued_rows = queued_rows
        self._oldest_wait_s = oldest_wait_s
        self._clock = clock
        self._target_s = target_s
        self._interval_s = interval_s
        self._quotas = quotas
        self._batch_rows = batch_rows
        self._spread = spread
        self._left_at = clock()
        self._rows = 0.0
        self._busy_s = 0.0
        self._batches = 0
        self._period_s = 0.0
        self._above_since: float | None = None
        self._overloaded = False
        self._refused_at = -math.inf
        self._counted_since = self._left_at
        self._offered_rows = 0.0
        self._admitted_rows = 0.0
        self._call_rows = 1

    @property
    def overloaded(self) -> bool:
        """Whether there is a standing queue."""
        return self._overloaded

    @property
    def target_s(self) -> float:
        """How long rows may wait in a standing queue, in seconds."""
        return max(self._target_s, 2 * self._period_s)

    @property
    def expected_wait_s(self) -> float:
        """How long rows that came now would wait, in seconds: what is queued by the rate at which rows leave."""
        return self._time_s(self._queued_rows())

    def _time_s(self, rows: int) -> float:
        """How long so many rows take to leave, in seconds."""
        return rows * self._busy_s / self._rows if self._rows else 0.0

    def left(self, rows: int, waited_s: float) -> None:
        """A batch left the queue.

        Args:
            rows: how many.
            waited_s: how long its oldest row waited, in seconds.
        """
        now = self._clock()
        # Time in which nobody waited says nothing about how fast rows can leave.
        busy_s = min(now - self._left_at, waited_s)
        self._left_at = now
        fade = math.exp(-busy_s / self._interval_s)
        self._rows = self._rows * fade + rows
        self._busy_s = self._busy_s * fade + busy_s
        self._batches += 1
        self._period_s += max(GAIN, 1 / self._batches) * (busy_s - self._period_s)
        self._judge(now, waited_s)

    def admit(
        self,
        rows: int,
        caller: str = "",
        priority: Priority = Priority.INTERACTIVE,
        rows_per_s: float | None = None,
    ) -> None:
        """Let a request in.

        Args:
            rows: of the request.
            caller: its name, "" where that is not known: all of those share one quota.
            priority: STREAM is refused before INTERACTIVE.
            rows_per_s: quota of this caller; None for what all have.

        Raises:
            OverloadedError: not now; it carries when it is worth trying again.
        """
        if self._quotas is not None:
            short_s = self._quotas.take(caller, rows, rows_per_s)
            if short_s > 0:
                raise OverloadedError(f"{caller or 'this caller'} has used up its quota of rows", short_s)
        if not self._overloaded and self._queued_rows() == 0:
            return
        self._refuse_if_late(rows, priority)
        # An interval's memory of how many rows a call may have.
        self._call_rows = max(rows, self._call_rows)
        self._offered_rows += rows
        self._admitted_rows += rows

    def turn_away(self, left_s: Callable[[], float | None]) -> None:
        """Refuse a call of which nothing has been read: one that `admit` would refuse, or could only be answered late.

        A call that is refused here costs much less than one that `admit` refuses. One that passes is still to be
        admitted. In a standing queue a call counts as one of the largest that came lately.

        Args:
            left_s: how long its caller still waits, in seconds; None where that is not known.

        Raises:
            OverloadedError: as from `admit`.
        """
        if self._overloaded:
            self._refuse_if_late(self._call_rows, Priority.INTERACTIVE)
        elif self._queued_rows() <= self._batch_rows:
            return
        takes_s, left = self._wait_s(1) + self._period_s, left_s()
        if left is not None and left < takes_s:
            raise OverloadedError(
                f"too much is asked for: an answer takes {takes_s * 1000:.0f} ms, and the call has come to its turn "
                f"with {max(0.0, left) * 1000:.0f} ms left",
                self._retry_after_s(takes_s),
            )

    def _refuse_if_late(self, rows: int, priority: Priority) -> None:
        now = self._clock()
        if now - self._counted_since > self._interval_s:
            self._counted_since = now
            self._offered_rows /= 2
            self._admitted_rows /= 2
            self._call_rows = max(1, self._call_rows // 2)
        age_s = self._oldest_wait_s()
        # What left the queue was judged when it left; a queue that nothing leaves is judged here.
        if age_s > self.target_s or self._overloaded:
            self._judge(now, age_s)
        wait_s = self._wait_s(rows)
        # A call of many rows, which takes long itself, may wait in proportion.
        allowed_s = max(self._allowed_s(priority), STRETCH * self._time_s(rows))
        stalled = age_s > self._interval_s + self.target_s
        if wait_s > allowed_s or stalled:
            self._refused_at = now
            self._offered_rows += rows
            excess_s = max(wait_s, age_s if stalled else 0.0) - allowed_s
            raise OverloadedError(
                f"too much is asked for: rows wait {max(wait_s, age_s) * 1000:.0f} ms for their turn, and may wait "
                f"{allowed_s * 1000:.0f} ms",
                self._retry_after_s(excess_s),
            )

    def early_s(self, priority: Priority) -> float:
        """How much too early a request of this priority would be now, in seconds; 0 where it is not.

        For who can wait with it rather than be refused: the reader of a stream, which then is not read from.
        """
        wait_s = self._wait_s(1)
        return max(0.0, wait_s - self._allowed_s(priority)) if wait_s else 0.0

    def _wait_s(self, rows: int) -> float:
        """How long rows that came now would wait for others, in seconds."""
        return self.expected_wait_s if self._queued_rows() + rows > self._batch_rows else 0.0

    def _allowed_s(self, priority: Priority) -> float:
        """How long a request may wait for its batch, in seconds."""
        limit_s = self.target_s if self._overloaded else max(self._interval_s, self.target_s)
        return limit_s / 2 if priority else limit_s

    def _judge(self, now: float, waited_s: float) -> None:
        """Is there a standing queue?"""
        if waited_s <= self.target_s:
            self._above_since = None
            if now - self._refused_at >= self._interval_s:
                self._overloaded = False
        elif self._above_since is None:
            self._above_since = now
        elif now - self._above_since >= self._interval_s:
            self._overloaded = True

    def _retry_after_s(self, excess_s: float) -> float:
        """When it is worth trying again, in seconds.

        When the queue has shrunk to what is allowed; and as not all who are refused can be let in then, later by as
        much as more is offered than let in.
        """
        turns = self._offered_rows / max(self._admitted_rows, self._offered_rows / 100, 1.0)
        delay_s = max(excess_s, self.target_s) * max(1.0, turns) * (1 + self._spread() / 2)
        return min(delay_s, LONGEST_RETRY_S)
