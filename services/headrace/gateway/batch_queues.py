"""The queues of a batcher: one per key, in turns, with what somebody waits for before what goes to a log.

Order. Keys take turns, a batch each. Within a key, and between keys, INTERACTIVE blocks go before STREAM blocks; but
when STREAM blocks of a key were passed over by `STREAM_TURN` - 1 batches in a row, the next batch is that key's, and
STREAM blocks go into it first. So STREAM has at least one full batch of each `STREAM_TURN`, and an INTERACTIVE block
waits at most that one batch more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Iterator
from enum import IntEnum
from typing import Generic, TypeVar

from headrace.gateway.errors import ExpiredError
from headrace.gateway.service_time import ServiceTime

K = TypeVar("K", bound=Hashable)
B = TypeVar("B")
A = TypeVar("A")

STREAM_TURN = 8
KEYS_REMEMBERED = 64


class Priority(IntEnum):
    """What goes first."""

    INTERACTIVE = 0
    """Somebody waits for the answer."""
    STREAM = 1
    """Goes to a log; a little later is no harm."""


class Waiting(Generic[K, B, A]):
    """A block of rows and who waits for its answer. `queue` is None once it has left."""

    __slots__ = ("answer", "block", "deadline", "queue", "rows", "since")

    def __init__(
        self,
        block: B,
        rows: int,
        deadline: float | None,
        since: float,
        answer: asyncio.Future[A],
        queue: KeyQueue[K, B, A],
    ) -> None:
        self.block = block
        self.rows = rows
        self.deadline = deadline
        self.since = since
        self.answer = answer
        self.queue: KeyQueue[K, B, A] | None = queue


class KeyQueue(Generic[K, B, A]):
    """What waits for a key, and how long its calls take."""

    __slots__ = ("interactive", "key", "passed_over", "rows", "service", "stream")

    def __init__(self, key: K) -> None:
        self.key = key
        self.interactive: deque[Waiting[K, B, A]] = deque()
        self.stream: deque[Waiting[K, B, A]] = deque()
        self.rows = 0
        self.passed_over = 0
        self.service = ServiceTime()

    def oldest(self) -> float:
        """Since when the oldest block waits; there must be one."""
        if not self.stream:
            return self.interactive[0].since
        if not self.interactive:
            return self.stream[0].since
        return min(self.interactive[0].since, self.stream[0].since)


class BatchQueues(Generic[K, B, A]):
    """The queues of all keys.

    Args:
        name: of what they wait for, for messages.
        max_rows: rows of a full batch.
    """

    def __init__(self, name: str, max_rows: int) -> None:
        self._name = name
        self.max_rows = max_rows
        self.rows = 0
        """Rows that wait."""
        self.ready: deque[KeyQueue[K, B, A]] = deque()
        """The queues that have rows, in the order of their turns."""
        self._by_key: dict[K, KeyQueue[K, B, A]] = {}

    def of(self, key: K) -> KeyQueue[K, B, A]:
        """The queue of a key; a new one forgets the oldest that is empty, when there are many."""
        queue = self._by_key.get(key)
        if queue is None:
            if len(self._by_key) >= KEYS_REMEMBERED:
                unused = next((old for old, queue in self._by_key.items() if not queue.rows), None)
                if unused is not None:
                    del self._by_key[unused]
            queue = self._by_key[key] = KeyQueue(key)
        return queue

    def add(self, queue: KeyQueue[K, B, A], waiting: Waiting[K, B, A], priority: Priority) -> None:
        """Put a block at the end of its queue."""
        if not queue.rows:
            self.ready.append(queue)
        (queue.stream if priority else queue.interactive).append(waiting)
        queue.rows += waiting.rows
        self.rows += waiting.rows

    def give_up(self, waiting: Waiting[K, B, A]) -> None:
        """Its caller has gone: while it is queued, it takes no room any more."""
        queue = waiting.queue
        if queue is None:
            return
        waiting.queue = None
        queue.rows -= waiting.rows
        self.rows -= waiting.rows
        if not queue.rows:
            self._empty(queue)
            return
        # The head of a queue is always one that waits: its age counts.
        for line in (queue.interactive, queue.stream):
            while line and line[0].queue is None:
                line.popleft()

    def oldest(self) -> float:
        """Since when the oldest block of all waits; there must be one."""
        return min(queue.oldest() for queue in self.ready)

    def any_full(self) -> bool:
        """Whether a queue has a full batch."""
        return any(queue.rows >= self.max_rows for queue in self.ready)

    def next(self) -> KeyQueue[K, B, A]:
        """The queue whose turn it is; there must be one."""
        ready = self.ready
        if len(ready) == 1:
            return ready[0]
        chosen = None
        for queue in ready:
            if queue.passed_over >= STREAM_TURN - 1:
                return queue
            if chosen is None and queue.interactive:
                chosen = queue
        return chosen or ready[0]

    def take(
        self, queue: KeyQueue[K, B, A], now: float, late: float, *, idle: bool
    ) -> tuple[list[Waiting[K, B, A]], int, float]:
        """Take the next batch of a queue, which goes to the end of the turns.

        Args:
            queue: one of `ready`.
            now: time of the event loop.
            late: when the answers are there at the earliest, by what calls took before. Blocks whose deadline is not
                after it are refused.
            idle: whether no call is under way. Then one of these goes all the same when there is nothing else: or
                nobody would find out that calls have become faster.

        Returns:
            Its blocks, their rows (at most `max_rows`), and since when the oldest of them waited.
        """
        batch, rows, oldest = list[Waiting[K, B, A]](), 0, now
        doomed: Waiting[K, B, A] | None = None
        left, max_rows = 0, self.max_rows
        of_stream = len(queue.stream)
        lines = (queue.interactive, queue.stream)
        for line in reversed(lines) if queue.passed_over >= STREAM_TURN - 1 else lines:
            since, before = line[0].since if line else now, rows
            while line:
                waiting = line[0]
                if waiting.queue is None:
                    line.popleft()
                    continue
                if rows + waiting.rows > max_rows:
                    break
                line.popleft()
                waiting.queue = None
                left += waiting.rows
                if waiting.answer.done():
                    continue
                if waiting.deadline is not None and waiting.deadline <= late:
                    if idle and doomed is None and waiting.deadline > now:
                        doomed = waiting
                        continue
                    self._refuse(waiting)
                    continue
                batch.append(waiting)
                rows += waiting.rows
            if rows > before:
                oldest = min(oldest, since)
        if doomed is not None:
            if batch:
                self._refuse(doomed)
            else:
                batch, rows, oldest = [doomed], doomed.rows, doomed.since
        queue.rows -= left
        self.rows -= left
        if len(self.ready) > 1:
            for other in self.ready:
                if other.stream and other is not queue:
                    other.passed_over += 1
        queue.passed_over = queue.passed_over + 1 if queue.stream and len(queue.stream) == of_stream else 0
        if not queue.rows:
            self._empty(queue)
        elif len(self.ready) > 1:
            self.ready.remove(queue)
            self.ready.append(queue)
        return batch, rows, oldest

    def clear(self) -> Iterator[Waiting[K, B, A]]:
        """Take out all that waits, one by one."""
        while self.ready:
            queue = self.ready[0]
            for waiting in (*queue.interactive, *queue.stream):
                if waiting.queue is not None:
                    waiting.queue = None
                    yield waiting
            self.rows -= queue.rows
            queue.rows = 0
            self._empty(queue)

    def _refuse(self, waiting: Waiting[K, B, A]) -> None:
        waiting.answer.set_exception(
            ExpiredError(f"the deadline passed, or could not be met any more, while waiting for {self._name}")
        )

    def _empty(self, queue: KeyQueue[K, B, A]) -> None:
        queue.interactive.clear()
        queue.stream.clear()
        queue.passed_over = 0
        self.ready.remove(queue)
