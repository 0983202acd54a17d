"""Puts the rows of many callers into one call. Pure asyncio: what the call does is injected.

Rows wait in a queue per key (a model version, say). A batch leaves when it is full, when nothing is under way (whoever
comes to an idle server waits for nobody), or when it has waited long enough. How long that is follows the measured time
of the calls: the next call begins when the server is about to be done with the last one, not earlier, because rows that
come meanwhile could not join it, and not later, because the server would be idle. See docs/decisions/0008.

Each caller gets the answer to its own block of rows whatever happens to the others: one that was cancelled, or whose
deadline has passed or cannot be met, is left out of the batch.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, Hashable, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar

from headrace.gateway.batch_queues import BatchQueues, KeyQueue, Priority, Waiting
from headrace.gateway.errors import ExpiredError, NotServingError, OverloadedError
from headrace.gateway.loop_rest import LoopRest
from headrace.gateway.service_time import Spacing

K = TypeVar("K", bound=Hashable)
B = TypeVar("B")
A = TypeVar("A")

Process = Callable[[K, list[B]], Coroutine[Any, Any, Sequence[A]]]
"""Takes a key and blocks of rows, returns one answer per block, in order."""

RETRY_AFTER_S = 0.05

# A call that begins early shows whether the server could have taken it; one that is held until all others are done
# shows how long a call takes alone. So the estimates stay true when nothing else would correct them.
EARLY_EVERY = 16
ALONE_EVERY = (4, 256)
"""At first and after a surprise, and the most that doubling goes to."""
PATIENCE = 8.0
"""How long the others are waited for, as a multiple of what a call takes: one that hangs shall not hold up the rest."""

SLACK = 0.15
"""How much longer than that a server may take, as a share of a call: the share of calls that overlap is an estimate."""

# Timers may fire this much early, in seconds.
RESOLUTION_S = 1e-6


class Flush(Enum):
    """Why a batch left."""

    FULL = "full"
    """It had as many rows as a batch may have."""
    WAITED = "waited"
    """It had waited long enough."""
    IDLE = "idle"
    """Nothing was under way."""


class _Call(Generic[K, B, A]):
    """A batch under way."""

    __slots__ = ("alone", "batch", "before", "began", "ends", "expected_s", "queue", "rows", "wait_s")

    def __init__(
        self,
        queue: KeyQueue[K, B, A],
        batch: list[Waiting[K, B, A]],
        rows: int,
        began: float,
        before: _Call[K, B, A] | None,
    ) -> None:
        self.queue = queue
        self.batch = batch
        self.rows = rows
        self.began = began
        self.before = before
        """The call that began before it, while that was under way."""
        self.alone = before is None
        self.expected_s = queue.service.of(rows)
        self.ends = began
        """When it will have ended, most likely."""
        self.wait_s: float | None = None
        """How much longer it took than alone, once it has ended."""


class Batcher(Generic[K, B, A]):
    """Gathers blocks of rows and processes them together.

    Args:
        process: does the work for one batch; an exception goes to each caller of the batch.
        name: for messages, for example "features".
        max_rows: rows of a full batch.
        max_queued_rows: rows that may wait in all queues together; more are refused.
        max_in_flight: calls that may be under way at once.
        window_s: how long the oldest row may wait while a call is under way, in seconds; None follows the measured
            time of the calls, which needs no tuning.
        rest: for calls that work on the event loop itself: says until when the loop takes in rows after a call, which
            it cannot while it works. For the same reason only full batches are called beside another one.
        observe: told of each batch when it leaves: its rows, how long its oldest row waited, in seconds, and why it
            left.
    """

    def __init__(
        self,
        process: Process[K, B, A],
        *,
        name: str,
        max_rows: int,
        max_queued_rows: int,
        max_in_flight: int,
        window_s: float | None = None,
        rest: LoopRest | None = None,
        observe: Callable[[int, float, Flush], None] | None = None,
    ) -> None:
        self._process = process
        self._name = name
        self.max_rows = max_rows
        self._window_s = window_s
        self._max_queued_rows = max_queued_rows
        self._max_in_flight = max_in_flight
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._queues: BatchQueues[K, B, A] = BatchQueues(name, max_rows)
        self._calls: dict[asyncio.Task[Sequence[A]], _Call[K, B, A]] = {}
        self._last: _Call[K, B, A] | None = None
        self._spacing = Spacing(1 / max_in_flight)
        self._hold_until = 0.0
        self._rest = rest
        self._overlapping = 0
        self._since_alone = 0
        self._alone_until = 0.0
        self._alone_every = ALONE_EVERY[0]
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a batch."""
        return self._queues.rows

    @property
    def oldest_wait_s(self) -> float:
        """How long the oldest row that waits has waited, in seconds; 0 where none waits."""
        if not self._queues.ready:
            return 0.0
        return max(0.0, self._loop.time() - self._queues.oldest())

    async def submit(
        self,
        key: K,
        block: B,
        rows: int,
        deadline: float | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> A:
        """The answer for a block of rows.

        Args:
            key: only blocks of the same key share a batch.
            block: what `process` gets.
            rows: number of rows in it, from 1 to `max_rows`.
            deadline: time of the event loop after which the answer is of no use.
            priority: what goes first.

        Raises:
            OverloadedError: the queues are full.
            ExpiredError: the deadline passed before the block took a place in a batch, or the answer could not have
                come in time.
            NotServingError: the batcher is closed.
        """
        waiting = self._put(key, block, rows, deadline, priority)
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            self._queues.give_up(waiting)
            raise

    def enqueue(
        self,
        key: K,
        block: B,
        rows: int,
        deadline: float | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> asyncio.Future[A]:
        """The same for who has many under way: what will be the answer. One that is cancelled is left out of its batch,
        and has its place until then.

        Raises:
            OverloadedError, ExpiredError, NotServingError: as from `submit`.
        """
        return self._put(key, block, rows, deadline, priority).answer

    def _put(self, key: K, block: B, rows: int, deadline: float | None, priority: Priority) -> Waiting[K, B, A]:
        if not 0 < rows <= self.max_rows:
            raise ValueError(f"a block has {rows} rows; a batch of {self._name} holds 1 to {self.max_rows}")
        if self._closed:
            raise NotServingError("the gateway is stopping")
        now = self._loop.time()
        queued = self._queues.rows
        # A block always fits into an empty queue, however small the limit is.
        if queued and queued + rows > self._max_queued_rows:
            raise OverloadedError(
                f"{queued} rows wait for {self._name}; at most {self._max_queued_rows} may", RETRY_AFTER_S
            )
        queue = self._queues.of(key)
        if deadline is not None:
            if deadline <= now:
                raise ExpiredError(f"the deadline passed before the {self._name} were asked for")
            # With nothing under way the estimate is not believed: it could never be corrected.
            if self._calls and now + self._least_time(queue, rows, queued) > deadline:
                raise ExpiredError(f"the {self._name} cannot answer within the deadline")
        waiting = Waiting(block, rows, deadline, now, self._loop.create_future(), queue)
        self._queues.add(queue, waiting, priority)
        # In the next turn of the loop, so that callers who come in one turn share a batch. With all calls under way,
        # nothing is due.
        if (
            self._soon is None
            and len(self._calls) < self._max_in_flight
            and (self._timer is None or self._changes_what_is_due(queue, rows))
        ):
            self._soon = self._loop.call_soon(self._pump)
        return waiting

    async def drain(self) -> None:
        """Finish what is queued, and take nothing new."""
        self._closed = True
        while self._queues.ready or self._calls:
            self._pump()
            if self._calls:
                await asyncio.wait(self._calls)
        self._stop_timer()

    async def close(self) -> None:
        """Give up what is queued and under way: its callers get `NotServingError`."""
        self._closed = True
        self._stop_timer()
        for waiting in self._queues.clear():
            if not waiting.answer.done():
                waiting.answer.set_exception(NotServingError("the gateway is stopping"))
        calls = set(self._calls)
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)

    def _least_time(self, queue: KeyQueue[K, B, A], rows: int, queued: int) -> float:
        """What it takes at least until rows that come now are answered, in seconds."""
        service = queue.service
        ahead = queued // self.max_rows
        least = service.at_least(rows)
        return least + ahead * self._spacing.share * service.at_least(self.max_rows) if ahead else least

    def _pump(self) -> None:
        """Send what is due, and look again when more may be."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        now = self._loop.time()
        while self._queues.ready and len(self._calls) < self._max_in_flight:
            due = self._due(now)
            if due is None:
                break
            self._flush(*due, now)
        if not self._queues.ready or len(self._calls) >= self._max_in_flight:
            self._stop_timer()
            return
        when = max(self._hold_until, self._alone_until)
        if self._rest is not None:
            full = self._queues.any_full()
            if self._calls and not full:
                self._stop_timer()
                return
            when = self._rest.until(now, full=full)
        elif self._window_s is not None:
            when = self._queues.oldest() + self._window_s
        if self._timer is not None:
            if self._timer.when() == when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self, now: float) -> tuple[KeyQueue[K, B, A], Flush] | None:
        """The queue whose turn it is, and why; None where none is due."""
        max_rows = self.max_rows
        soon = now + RESOLUTION_S
        if self._rest is not None and not self._closed:
            full = self._queues.any_full()
            # A second one beside it only where it cannot get larger by waiting.
            if (self._calls and not full) or soon < self._rest.until(now, full=full):
                return None
        if not self._calls or self._rest is not None:
            queue = self._queues.next()
            if queue.rows >= max_rows:
                return queue, Flush.FULL
            rested = self._rest is not None and self._rest.waited(queue.oldest())
            return queue, Flush.WAITED if rested else Flush.IDLE
        if self._window_s is not None:
            return self._due_by_window(soon, self._window_s)
        if soon < self._alone_until:
            return None
        # A full batch of one key is a turn for whichever key comes next: or the others would wait for ever.
        if soon < self._hold_until and not self._closed and not self._queues.any_full():
            return None
        queue = self._queues.next()
        return queue, Flush.FULL if queue.rows >= max_rows else Flush.WAITED

    def _due_by_window(self, soon: float, window_s: float) -> tuple[KeyQueue[K, B, A], Flush] | None:
        for queue in self._queues.ready:
            if queue.rows >= self.max_rows:
                return queue, Flush.FULL
            if self._closed or soon >= queue.oldest() + window_s:
                return queue, Flush.WAITED
        return None

    def _changes_what_is_due(self, queue: KeyQueue[K, B, A], rows: int) -> bool:
        """Whether rows that have just been added are a reason to look before the timer does: to an idle server, or a
        batch that they filled.
        """
        if self._rest is None:
            return not self._calls or queue.rows >= self.max_rows
        return queue.rows - rows < self.max_rows <= queue.rows

    def _flush(self, queue: KeyQueue[K, B, A], reason: Flush, now: float) -> None:
        late = now + queue.service.at_least(1)
        batch, rows, oldest = self._queues.take(queue, now, late, idle=not self._calls)
        if not batch:
            return
        if self._observe is not None:
            self._observe(rows, now - oldest, reason)
        call = _Call(queue, batch, rows, now, self._last if self._calls else None)
        self._last = call
        self._hold(call)
        task = self._loop.create_task(
            self._process(queue.key, [waiting.block for waiting in batch]), name=f"batch-{self._name}"
        )
        self._calls[task] = call
        task.add_done_callback(self._called)

    def _hold(self, call: _Call[K, B, A]) -> None:
        """Decide when the next call may begin while this one is under way."""
        if call.alone:
            if self._since_alone >= self._alone_every:
                self._alone_every = min(2 * self._alone_every, ALONE_EVERY[1])
            self._since_alone = 0
            self._alone_until = 0.0
        else:
            self._since_alone += 1
            self._overlapping += 1
        occupied = self._spacing.share * call.expected_s
        free = max(call.began, self._hold_until) if not call.alone else call.began
        call.ends = free + call.expected_s
        if self._since_alone >= self._alone_every:
            self._alone_until = call.began + PATIENCE * call.expected_s
        if self._overlapping >= EARLY_EVERY:
            self._overlapping = 0
            occupied /= 2
        self._hold_until = free + occupied

    def _called(self, task: asyncio.Task[Sequence[A]]) -> None:
        """Give each caller of a call that has ended its answer."""
        call = self._calls.pop(task)
        batch = call.batch
        if self._rest is not None:
            now = self._loop.time()
            self._rest.ended(now, now - call.began)
        error = NotServingError("the gateway is stopping") if task.cancelled() else task.exception()
        if error is None:
            answers = task.result()
            if len(answers) == len(batch):
                for waiting, answer in zip(batch, answers, strict=True):
                    if not waiting.answer.done():
                        waiting.answer.set_result(answer)
                self._learn(call)
            else:
                error = RuntimeError(f"{self._name}: {len(answers)} answers for {len(batch)} blocks")
        if error is not None:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(_copy_of(error))
        call.before = None
        # After the callers who have just got their answers: what they ask next shares the batch.
        if self._queues.ready and self._soon is None:
            self._soon = self._loop.call_soon(self._pump)

    def _learn(self, call: _Call[K, B, A]) -> None:
        """Learn from a call that has been answered. A failure says nothing about how long an answer takes."""
        now = self._loop.time()
        took = now - call.began
        last, under_way = self._last, len(self._calls)
        if under_way and last is not None:
            # What waits behind it at the server began as much later, or earlier; and at the latest the server is free
            # when it has done all that is under way now.
            left = (max(0.0, (under_way + 1) * self._spacing.share - 1) + SLACK) * last.expected_s
            self._hold_until = min(self._hold_until + now - call.ends, now + left)
        service, before = call.queue.service, call.before
        if before is None:
            service.add(call.rows, took)
            call.wait_s = 0.0
            return
        longer = took - call.expected_s
        call.wait_s = max(0.0, longer)
        if abs(longer) < Spacing.NOISE * call.expected_s:
            service.add(call.rows, took)
        if before.wait_s is not None and self._spacing.add(
            call.began - before.began, call.wait_s, before.wait_s, before.expected_s, service.deviation_s
        ):
            self._alone_every = ALONE_EVERY[0]


def _copy_of(error: BaseException) -> BaseException:
    # One exception raised in several tasks would collect the traceback of each.
    try:
        duplicate = copy.copy(error)
    except Exception:  # noqa: BLE001 (an exception of a library that cannot be copied)
        return error
    duplicate.__cause__ = error
    return duplicate
