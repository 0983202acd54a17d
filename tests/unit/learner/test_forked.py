"""Work in a forked process gives what it would give here, or says that it did not."""

from __future__ import annotations

import os
import signal
import time

import pytest

from headrace.learner.errors import SnapshotError
from headrace.learner.forked import ForkFailedError, fork


async def test_the_child_works_on_the_state_as_it_was() -> None:
    state = [1, 2, 3]
    forked = fork(lambda: (os.getpid(), sum(state)), 30)
    state.append(100)
    pid, total = await forked.result()
    assert (pid, total) == (forked.pid, 6)


async def test_an_error_is_raised_here() -> None:
    def fail() -> None:
        raise SnapshotError("no such thing")

    with pytest.raises(SnapshotError, match="no such thing"):
        await fork(fail, 30).result()


async def test_a_large_answer_comes_whole() -> None:
    assert len(await fork(lambda: b"x" * 5_000_000, 30).result()) == 5_000_000


async def test_a_child_that_is_killed_is_noticed() -> None:
    forked = fork(lambda: time.sleep(60), 60)
    os.kill(forked.pid, signal.SIGKILL)
    with pytest.raises(ForkFailedError, match="ended without one"):
        await forked.result()


async def test_a_child_that_takes_too_long_is_ended() -> None:
    with pytest.raises(ForkFailedError):
        await fork(lambda: time.sleep(60), 1).result()
