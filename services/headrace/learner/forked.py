"""A piece of work in a forked process: on the state as it is now, while this process goes on changing it.

A version of a large model takes a good part of a second to export, check, pickle and write. The child has the memory
of this process as it was at the fork, so what it writes is what would have been written here.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from headrace.learner.errors import LearnerError


class ForkFailedError(LearnerError):
    """The forked process ended without an answer: it was killed, or took too long."""


@dataclass(frozen=True)
class Forked:
    """Work under way in a child process. Made by `fork`; `result` must be awaited."""

    pid: int
    reading: int

    async def result(self) -> Any:
        """What the work gave, once it is done.

        Raises:
            ForkFailedError: the child ended without an answer.
            Exception: what the work raised.
        """
        content = await asyncio.to_thread(self._read)
        if not content:
            raise ForkFailedError(f"process {self.pid}, forked to make a version, ended without one")
        # From our own child, through a pipe that nobody else has.
        returned, value = pickle.loads(content)  # noqa: S301
        if not returned:
            raise value
        return value

    def _read(self) -> bytes:
        with os.fdopen(self.reading, "rb") as pipe:
            content = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        return content if status == 0 else b""


def fork(work: Callable[[], Any], timeout_s: int) -> Forked:
    """Start work in a child process. To be called from the main thread while no other thread changes what it reads.

    Args:
        work: gives a value that can be pickled, and touches no connection of this process.
        timeout_s: the child is ended by an alarm after this many seconds.

    Raises:
        OSError: no process can be made.
    """
    reading, writing = os.pipe()
    # Nothing is collected in the child: it would copy the pages of what it looks at.
    gc.disable()
    try:
        pid = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    finally:
        gc.enable()
    if pid == 0:
        _in_child(work, writing, timeout_s)
    os.close(writing)
    return Forked(pid, reading)


def _in_child(work: Callable[[], Any], writing: int, timeout_s: int) -> NoReturn:
    status = 1
    try:
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.alarm(timeout_s)
        gc.disable()
        try:
            answer = (True, work())
        except Exception as error:  # noqa: BLE001 - it is raised again in the parent
            answer = (False, error)
        content = pickle.dumps(answer)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(content)
        status = 0
    finally:
        # Nothing of what the parent has open is closed in an orderly way here: it is the parent's.
        os._exit(status)
