"""Puts the rows of many callers into one call. Pure asyncio: what the call does is injected.

Rows wait in a queue per key (a model version, say). A queue is flushed when it has a full batch, when its oldest row
has waited the window, or when no call is under way: whoever comes to an idle server waits for nobody. Each caller gets
the answer to its own block of rows whatever happens to the others: one that was cancelled, or whose deadline has
passed, is left out of the batch.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from headrace.gateway.errors import ExpiredError, NotServingError, OverloadedError

K = TypeVar("K", bound=Hashable)
B = TypeVar("B")
A = TypeVar("A")

Process = Callable[[K, list[B]], Awaitable[Sequence[A]]]
"""Takes a key and blocks of rows, returns one answer per block, in order."""

RETRY_AFTER_S = 0.05


@dataclass(slots=True)
class _Waiting(Generic[B, A]):
    block: B
    rows: int
    deadline: float | None
    since: float
    answer: asyncio.Future[A]


class Batcher(Generic[K, B, A]):
    """Gathers blocks of rows and processes them together.

    Args:
        process: does the work for one batch; an exception goes to each caller of the batch.
        name: for messages, for example "features".
        max_rows: rows of a full batch.
        window_s: how long the oldest row may wait while a call is under way, in seconds.
        max_queued_rows: rows that may wait in all queues together; more are refused.
        max_in_flight: calls that may be under way at once.
        observe: told of each batch: its rows, and how long its oldest row waited, in seconds.
    """

    def __init__(
        self,
        process: Process[K, B, A],
        *,
        name: str,
        max_rows: int,
        window_s: float,
        max_queued_rows: int,
        max_in_flight: int,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        self._process = process
        self._name = name
        self.max_rows = max_rows
        self._window_s = window_s
        self._max_queued_rows = max_queued_rows
        self._max_in_flight = max_in_flight
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._queues: dict[K, deque[_Waiting[B, A]]] = {}
        self._rows: dict[K, int] = {}
        self._queued_rows = 0
        self._calls: set[asyncio.Task[None]] = set()
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a batch."""
        return self._queued_rows

    async def submit(self, key: K, block: B, rows: int, deadline: float | None = None) -> A:
        """The answer for a block of rows.

        Args:
            key: only blocks of the same key share a batch.
            block: what `process` gets.
            rows: number of rows in it, at most `max_rows`.
            deadline: time of the event loop after which the answer is of no use.

        Raises:
            OverloadedError: the queues are full.
            ExpiredError: the deadline passed before the block took a place in a batch.
            NotServingError: the batcher is closed.
        """
        if rows > self.max_rows:
            raise ValueError(f"a block has {rows} rows; a batch of {self._name} holds {self.max_rows}")
        if self._closed:
            raise NotServingError("the gateway is stopping")
        now = self._loop.time()
        if deadline is not None and deadline <= now:
            raise ExpiredError(f"the deadline passed before the {self._name} were asked for")
        # A block always fits into an empty queue, however small the limit is.
        if self._queued_rows and self._queued_rows + rows > self._max_queued_rows:
            raise OverloadedError(
                f"{self._queued_rows} rows wait for {self._name}; at most {self._max_queued_rows} may", RETRY_AFTER_S
            )
        answer: asyncio.Future[A] = self._loop.create_future()
        self._queues.setdefault(key, deque()).append(_Waiting(block, rows, deadline, now, answer))
        self._rows[key] = self._rows.get(key, 0) + rows
        self._queued_rows += rows
        self._pump_soon()
        return await answer

    async def drain(self) -> None:
        """Finish what is queued, and take nothing new."""
        self._closed = True
        while self._queues or self._calls:
            self._pump()
            if self._calls:
                await asyncio.wait(self._calls)
        if self._timer is not None:
            self._timer.cancel()

    async def close(self) -> None:
        """Give up what is queued and under way: its callers get `NotServingError`."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        queued = [waiting for queue in self._queues.values() for waiting in queue]
        self._queues.clear()
        self._rows.clear()
        self._queued_rows = 0
        for waiting in queued:
            if not waiting.answer.done():
                waiting.answer.set_exception(NotServingError("the gateway is stopping"))
        calls = set(self._calls)
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)

    def _pump_soon(self) -> None:
        # In the next turn of the loop, so that callers who come in one turn share a batch.
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        # The queue that has waited longest goes first.
        for key in sorted(self._queues, key=lambda one: self._queues[one][0].since):
            while self._queues.get(key) and len(self._calls) < self._max_in_flight and self._is_due(key, now):
                self._flush(key, now)
        if self._queues and len(self._calls) < self._max_in_flight:
            oldest = min(queue[0].since for queue in self._queues.values())
            self._timer = self._loop.call_at(oldest + self._window_s, self._pump)

    def _is_due(self, key: K, now: float) -> bool:
        return (
            not self._calls
            or self._closed
            or self._rows[key] >= self.max_rows
            or now - self._queues[key][0].since >= self._window_s
        )

    def _flush(self, key: K, now: float) -> None:
        queue, batch, rows = self._queues[key], list[_Waiting[B, A]](), 0
        oldest = now
        while queue and rows + queue[0].rows <= self.max_rows:
            waiting = queue.popleft()
            self._rows[key] -= waiting.rows
            self._queued_rows -= waiting.rows
            if waiting.answer.done():
                continue
            if waiting.deadline is not None and waiting.deadline <= now:
                waiting.answer.set_exception(ExpiredError(f"the deadline passed while waiting for {self._name}"))
                continue
            batch.append(waiting)
            rows += waiting.rows
            oldest = min(oldest, waiting.since)
        if not queue:
            del self._queues[key], self._rows[key]
        if not batch:
            return
        if self._observe is not None:
            self._observe(rows, now - oldest)
        call = self._loop.create_task(self._call(key, batch), name=f"batch-{self._name}")
        self._calls.add(call)
        call.add_done_callback(self._called)

    async def _call(self, key: K, batch: list[_Waiting[B, A]]) -> None:
        try:
            answers = await self._process(key, [waiting.block for waiting in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{self._name}: {len(answers)} answers for {len(batch)} blocks")
        except asyncio.CancelledError:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(NotServingError("the gateway is stopping"))
            raise
        except Exception as error:  # noqa: BLE001 (each caller gets it)
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(_copy_of(error))
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)

    def _called(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if self._queues:
            self._pump_soon()


def _copy_of(error: Exception) -> Exception:
    # One exception raised in several tasks would collect the traceback of each.
    try:
        duplicate = copy.copy(error)
    except Exception:  # noqa: BLE001 (an exception of a library that cannot be copied)
        return error
    duplicate.__cause__ = error
    return duplicate
