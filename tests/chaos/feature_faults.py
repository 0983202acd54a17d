"""Faults for the workers of the stream processor and for what they stand on, and a supervisor that restarts them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter

from deploy.local import Stack, StackError
from tests.integration.features.deployment import Worker
from tests.integration.features.older_redis import keep_files, restart_from

POLL_S = 0.05
BACK_S = 60.0
ZOMBIE_S = (7.5, 10.0)
"""Longer than the session of 6 s that a worker has with its group: another one takes over meanwhile."""
MISCONFIGURED = 2

WORKER_FAULTS = ["kill -9"] * 4 + ["SIGTERM"] * 2 + ["SIGSTOP"] * 3 + ["short SIGSTOP"]
INFRASTRUCTURE_FAULTS = ["Redis kill -9", "Redis SIGTERM", "Redis taken back", "broker kill -9", "broker SIGTERM"]


class Faults:
    """Does one fault after the other, and counts them."""

    def __init__(self, stack: Stack, workers: list[Worker], seed: int, kinds: list[str]) -> None:
        """Args:
        stack: the private stack that the workers run on.
        workers: the workers.
        seed: decides the order, the victims and how long each fault lasts.
        kinds: what may happen; each as often as it is named, in a new order every time.
        """
        self._stack = stack
        self._workers = workers
        self._random = random.Random(seed)
        self._kinds = kinds
        self._deck: list[str] = []
        self.done: Counter[str] = Counter()
        self.exits: Counter[int] = Counter()
        self.unexpected: list[str] = []
        """Stack traces of workers that ended by an error that nothing had foreseen."""

    @property
    def every_kind_happened(self) -> bool:
        """Whether each kind of fault has happened once at least."""
        return self.done.keys() >= set(self._kinds)

    async def supervise(self) -> None:
        """Start workers again that have ended, until cancelled.

        Raises:
            AssertionError: one has ended in a way that a restart does not help.
        """
        while True:
            for worker in self._workers:
                if worker.ended and worker.process is not None:
                    status = worker.process.returncode
                    assert status is not None
                    assert status != MISCONFIGURED, worker.text()[-6000:]
                    self.unexpected += [end["traceback"] for end in worker.said("service failed") if "traceback" in end]
                    self.exits[status] += 1
                    await worker.start()
            await asyncio.sleep(POLL_S)

    async def strike(self) -> str:
        """The next fault, until it is over; what it was."""
        if not self._deck:
            self._deck = list(self._kinds)
            self._random.shuffle(self._deck)
        kind = self._deck.pop()
        await asyncio.sleep(self._random.uniform(0.2, 3.0))
        program, _, how = kind.partition(" ")
        if program in {"Redis", "broker"}:
            await self._infrastructure("redis" if program == "Redis" else "kafka", how)
        else:
            await self._worker(kind)
        self.done[kind] += 1
        return kind

    async def _worker(self, kind: str) -> None:
        victim = self._random.choice(self._workers)
        process = victim.process
        assert process is not None
        if process.returncode is not None:  # ended by itself a moment ago; the supervisor has not come round
            return
        if kind in {"kill -9", "SIGTERM"}:
            process.send_signal(signal.SIGKILL if kind == "kill -9" else signal.SIGTERM)
            await asyncio.wait_for(process.wait(), BACK_S)
            return
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(self._random.uniform(*ZOMBIE_S if kind == "SIGSTOP" else (0.2, 3.0)))
        finally:
            process.send_signal(signal.SIGCONT)

    async def _infrastructure(self, program: str, how: str) -> None:
        before = await asyncio.to_thread(self._stack.process_id, program)
        if how == "taken back":
            await self._take_redis_back()
        else:
            os.kill(before, signal.SIGKILL if how == "kill -9" else signal.SIGTERM)
        async with asyncio.timeout(BACK_S):
            while not await asyncio.to_thread(self._replaced, program, before):  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(POLL_S)

    async def _take_redis_back(self) -> None:
        """Redis starts again from what its files were about a second ago."""
        copy = await asyncio.to_thread(keep_files, self._stack)
        await asyncio.sleep(self._random.uniform(0.5, 1.5))
        await restart_from(self._stack, copy)

    def _replaced(self, program: str, before: int) -> bool:
        try:
            if self._stack.process_id(program) == before:
                return False
        except StackError:
            return False
        return any(line.name == program and line.ready for line in self._stack.status())
