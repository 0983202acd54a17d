"""Who is let in, who is told to come back, and when: on a virtual clock."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.gateway.admission import Admission, ClientQuotas
from headrace.gateway.batch_queues import Priority
from headrace.gateway.errors import OverloadedError
from loadtests.gateway.admission import SERVERS, overload

TARGET_S, INTERVAL_S = 0.02, 0.1
STREAM = Priority.STREAM


class Queue:
    """A queue that rows leave at a rate, in batches of ten, on a clock of its own."""

    def __init__(self, rows_per_s: float, quotas: ClientQuotas | None = None) -> None:
        self.now = 0.0
        self.rows_per_s = rows_per_s
        self.waiting: list[float] = []
        self.admission = Admission(
            lambda: len(self.waiting),
            lambda: self.now - self.waiting[0] if self.waiting else 0.0,
            lambda: self.now,
            target_s=TARGET_S,
            interval_s=INTERVAL_S,
            quotas=quotas,
            batch_rows=10 if quotas is None else 0,
            spread=lambda: 0.5,
        )
        self.next_batch = 0.0

    def until(self, moment: float) -> None:
        """Let time pass."""
        while self.next_batch <= moment:
            self.now = max(self.now, self.next_batch)
            batch, self.waiting = self.waiting[:10], self.waiting[10:]
            if batch:
                self.admission.left(len(batch), self.now - batch[0])
            self.next_batch = self.now + 10 / self.rows_per_s
        self.now = moment

    def ask(self, priority: Priority = Priority.INTERACTIVE, rows: int = 1) -> float:
        """0 where it is let in, else the delay it is told."""
        try:
            self.admission.admit(rows, "somebody", priority)
        except OverloadedError as error:
            return error.retry_after_s
        self.waiting += [self.now] * rows
        return 0.0

    def turned_away(self, left_s: float | None = None) -> bool:
        """Whether a call would be, before it is read."""
        try:
            self.admission.turn_away(lambda: left_s)
        except OverloadedError:
            return True
        return False

    def offer(self, rows_per_s: float, seconds: float, priority: Priority = Priority.INTERACTIVE) -> list[float]:
        """Ask at a steady rate."""
        began, asked, told = self.now, 0, []
        while asked / rows_per_s < seconds:
            self.until(began + asked / rows_per_s)
            told.append(self.ask(priority))
            asked += 1
        return told


def refused(told: list[float]) -> float:
    return sum(delay > 0 for delay in told) / len(told)


def test_below_capacity_nobody_is_refused() -> None:
    queue = Queue(10_000)
    assert refused(queue.offer(9_000, 0.7)) == 0
    assert not queue.admission.overloaded


def test_a_burst_shorter_than_the_interval_is_let_in() -> None:
    queue = Queue(10_000)
    queue.offer(5_000, 0.5)
    assert refused(queue.offer(15_000, 0.09)) == 0
    assert refused(queue.offer(5_000, 0.5)) == 0


def test_a_standing_queue_is_kept_at_the_target_and_the_rest_refused() -> None:
    queue = Queue(10_000)
    queue.offer(30_000, 0.4)
    assert queue.admission.overloaded
    assert refused(queue.offer(30_000, 0.4)) == pytest.approx(2 / 3, abs=0.03)
    assert queue.admission.expected_wait_s == pytest.approx(TARGET_S, rel=0.3)
    assert len(queue.waiting) < 1.5 * TARGET_S * 10_000


def test_when_the_overload_ends_everybody_is_let_in_again_and_a_burst_too() -> None:
    queue = Queue(10_000)
    queue.offer(30_000, 0.4)
    queue.offer(5_000, 2 * INTERVAL_S)
    assert not queue.admission.overloaded
    assert refused(queue.offer(9_000, 1.0)) == 0
    assert refused(queue.offer(15_000, 0.09)) == 0


def test_it_is_not_over_in_the_middle_of_an_overload() -> None:
    queue = Queue(10_000)
    queue.offer(30_000, 0.4)
    for _ in range(30):
        queue.offer(30_000, 0.01)
        assert queue.admission.overloaded


def test_a_slower_server_lets_fewer_wait() -> None:
    fast, slow = Queue(50_000), Queue(2_000)
    fast.offer(150_000, 0.4)
    slow.offer(6_000, 1.0)
    assert len(fast.waiting) == pytest.approx(TARGET_S * 50_000, rel=0.4)
    assert len(slow.waiting) == pytest.approx(TARGET_S * 2_000, rel=0.4)


def test_what_waits_for_the_next_batch_is_no_standing_queue() -> None:
    # A batch of ten each 100 ms: rows wait longer than the target, and there is no overload.
    queue = Queue(100)
    assert refused(queue.offer(80, 20.0)) == 0
    assert queue.admission.target_s > TARGET_S


def test_a_queue_that_nothing_leaves_takes_nobody_after_a_while() -> None:
    queue = Queue(10_000)
    queue.offer(5_000, 0.5)
    queue.next_batch = 1e9
    told = queue.offer(5_000, 1.0)
    assert refused(told[-1000:]) == 1
    assert len(queue.waiting) < 5_000 * (INTERVAL_S + TARGET_S) * 2


def test_a_queue_that_nothing_ever_left_takes_nobody_after_a_while() -> None:
    queue = Queue(10_000)
    queue.next_batch = 1e9
    told = queue.offer(1_000, 1.0)
    assert refused(told[:100]) == 0
    assert refused(told[-500:]) == 1


def test_stream_rows_are_refused_first() -> None:
    queue = Queue(10_000)
    queue.offer(30_000, 0.4)
    told = dict.fromkeys(Priority, 0)
    for i in range(20_000):
        queue.until(queue.now + 1 / 20_000)
        priority = Priority(i % 2)
        told[priority] += queue.ask(priority) > 0
    # As much is offered of each as the server can do.
    assert told[Priority.INTERACTIVE] < 1_500
    assert told[STREAM] > 8_500


def test_who_comes_back_after_the_delay_is_let_in() -> None:
    # Each caller asks once, and again each time after the delay that it was told.
    queue = Queue(10_000)
    queue.offer(30_000, 0.4)
    due = [(queue.now + i / 3_000, 0) for i in range(3_000)]
    tries = []
    while due:
        due.sort()
        moment, before = due.pop(0)
        queue.until(max(moment, queue.now))
        delay = queue.ask()
        if delay:
            assert 0 < delay <= 10
            due.append((queue.now + delay, before + 1))
        else:
            tries.append(before + 1)
    assert sum(tries) / len(tries) < 1.5


def test_more_is_told_to_wait_longer_where_more_is_offered() -> None:
    delays = []
    for times in (1.5, 3, 10):
        queue = Queue(10_000)
        queue.offer(times * 10_000, 0.5)
        told = [delay for delay in queue.offer(times * 10_000, 0.3) if delay]
        delays.append(sum(told) / len(told))
    assert delays == sorted(delays)
    assert delays[0] >= TARGET_S


def test_a_caller_has_its_quota_and_is_told_when_it_has_rows_again() -> None:
    queue = Queue(1e6)
    quotas = ClientQuotas(100, 50, 10, lambda: queue.now)
    admission = Queue(1e6, quotas)
    assert quotas.take("a", 50) == 0
    assert quotas.take("a", 10) == pytest.approx(0.1)
    assert quotas.take("b", 50) == 0
    queue.now = 0.1
    assert quotas.take("a", 10) == 0
    admission.admission.admit(51, "somebody")
    with pytest.raises(OverloadedError, match="somebody has used up its quota") as told:
        admission.admission.admit(1, "somebody")
    assert told.value.retry_after_s == pytest.approx(0.02)


def test_a_request_larger_than_the_burst_passes_when_the_bucket_is_full_and_is_paid_for() -> None:
    now = [0.0]
    quotas = ClientQuotas(100, 50, 10, lambda: now[0])
    assert quotas.take("a", 200) == 0
    # 150 are owed.
    assert quotas.take("a", 50) == pytest.approx(2.0)
    now[0] = 2.0
    assert quotas.take("a", 50) == 0


def test_a_caller_may_have_a_quota_of_its_own() -> None:
    now = [0.0]
    quotas = ClientQuotas(0, 50, 10, lambda: now[0])
    assert quotas.take("anyone", 10_000) == 0
    assert quotas.take("batch", 50, 10) == 0
    assert quotas.take("batch", 5, 10) == pytest.approx(0.5)
    now[0] = 0.5
    assert quotas.take("batch", 5, 10) == 0
    admission = Admission(lambda: 0, lambda: 0.0, lambda: now[0], target_s=1, interval_s=1, quotas=quotas)
    with pytest.raises(OverloadedError, match="batch has used up its quota"):
        admission.admit(5, "batch", rows_per_s=10)
    admission.admit(5, "anyone")


def test_without_a_quota_nobody_is_remembered() -> None:
    quotas = ClientQuotas(0, 50, 10, lambda: 0.0)
    assert quotas.take("a", 10**9) == 0
    assert len(quotas) == 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 80), st.floats(0, 1)),
        max_size=100,
    ),
    st.integers(1, 8),
)
def test_quotas_hold_whoever_asks_for_what(asked: list[tuple[str, int, float]], max_callers: int) -> None:
    now = [0.0]
    rate, burst = 100.0, 50.0
    quotas = ClientQuotas(rate, burst, max_callers, lambda: now[0])
    took: dict[str, float] = {}
    for caller, rows, pause in asked:
        now[0] += pause
        wait_s = quotas.take(caller, rows)
        assert len(quotas) <= max_callers
        if wait_s == 0:
            took[caller] = took.get(caller, 0) + rows
            # One request may be larger than the burst; callers that were forgotten start anew.
            if max_callers == 8:
                assert took[caller] <= burst + rate * now[0] + 80
            continue
        # When it said, it is so, and not before.
        assert wait_s <= (burst + 80) / rate + 1e-6
        then, now[0] = now[0], now[0] + wait_s * 0.9
        assert quotas.take(caller, rows) > 0
        now[0] = then + wait_s + 1e-6
        assert quotas.take(caller, rows) == 0
        took[caller] = took.get(caller, 0) + rows


def test_at_three_times_the_capacity_goodput_holds_and_collapses_without() -> None:
    server = SERVERS["2 ms + 20 µs"]
    controlled = overload(server, 3.0, controlled=True, duration_s=1.0)
    assert controlled.goodput >= 0.9
    assert controlled.p99_s < 0.2
    assert controlled.refused == pytest.approx(2 / 3, abs=0.05)
    assert controlled.retry_s > TARGET_S
    assert overload(server, 3.0, controlled=False, duration_s=1.0).goodput < 0.5


def test_at_half_the_capacity_nothing_changes() -> None:
    server = SERVERS["2 ms + 20 µs"]
    with_control = overload(server, 0.5, controlled=True, duration_s=1.0)
    without = overload(server, 0.5, controlled=False, duration_s=1.0)
    assert with_control.refused == 0
    assert with_control == without


def test_nobody_is_turned_away_unread_before_there_is_a_standing_queue() -> None:
    queue = Queue(rows_per_s=1000)
    queue.ask(rows=90)
    assert not queue.turned_away()
    assert queue.ask() == 0


def test_in_a_standing_queue_a_call_is_turned_away_unread_where_it_would_be_refused() -> None:
    queue = Queue(rows_per_s=1000)
    queue.offer(3000, seconds=1)
    assert queue.admission.overloaded
    agreed = 0
    for _ in range(300):
        queue.until(queue.now + 0.001)
        away = queue.turned_away()
        agreed += away == (queue.ask() > 0)
    assert agreed == 300


def test_calls_of_many_rows_are_not_turned_away_by_the_limit_of_small_ones() -> None:
    queue = Queue(rows_per_s=1000)
    queue.offer(3000, seconds=1)
    assert queue.admission.overloaded
    # A call of 20 rows takes 20 ms itself, so it may wait four times as long.
    assert queue.ask(rows=20) == 0
    while queue.admission.expected_wait_s > TARGET_S / 2:
        queue.until(queue.now + 0.001)
    while not queue.turned_away():
        assert queue.ask(rows=20) == 0
    # By the limit of a call of one row it would have been refused before.
    assert queue.admission.expected_wait_s > 3 * TARGET_S


def test_turning_calls_away_ends_with_the_queue() -> None:
    queue = Queue(rows_per_s=1000)
    queue.offer(3000, seconds=1)
    end = queue.now + 3 * INTERVAL_S
    while queue.turned_away() or queue.admission.overloaded:
        assert queue.now < end
        queue.until(queue.now + 0.001)


def test_a_call_that_can_only_be_answered_late_is_turned_away_unread() -> None:
    queue = Queue(rows_per_s=1000)
    queue.offer(900, seconds=1)
    assert not queue.admission.overloaded
    assert not queue.turned_away(left_s=0.001), "nobody waits longer than for the next batch"
    queue.ask(rows=50)
    assert not queue.turned_away()
    assert not queue.turned_away(left_s=0.09)
    assert queue.turned_away(left_s=0.03)
