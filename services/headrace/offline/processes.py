"""Tasks of a computation in several processes, or in this one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Self, TypeVar

from headrace.offline.computation import Computation, EventSource, LabelSource, Workspace
from headrace.offline.errors import ProcessEnded
from headrace.pipeline.state import compile_plan
from headrace.platform.pipelines import load_pipeline

R = TypeVar("R")

_OF_THIS_PROCESS: list[Computation] = []


@dataclass
class Processes:
    """Runs tasks of a computation.

    Attributes:
        computation: the computation.
        reference: file or module of the pipeline; it is code, so each process loads it.
        workers: number of processes; 1 for none but this.
    """

    computation: Computation
    reference: str
    workers: int

    def __post_init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self.workers > 1:
            one = self.computation
            # Not forked: Polars has threads. Its own threads would only compete with the processes.
            self._pool = ProcessPoolExecutor(
                self.workers,
                get_context("spawn"),
                initializer=_start,
                initargs=(self.reference, one.space, one.events, one.labels),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, method: Callable[..., R], arguments: Sequence[tuple[int, ...]]) -> Iterator[R]:
        """Call a method of the computation with each of these arguments; the results in order.

        Raises:
            ProcessEnded: a process has ended.
            Exception: what the first task that failed raised.
        """
        if self._pool is None:
            for given in arguments:
                yield method(self.computation, *given)
            return
        tasks: list[Future[R]] = [self._pool.submit(_call, method.__name__, given) for given in arguments]
        try:
            for task in tasks:
                yield task.result()
        except BrokenProcessPool as error:
            raise ProcessEnded(
                "a process was ended from outside, most likely for want of memory: try fewer --workers"
            ) from error
        finally:
            for task in tasks:
                task.cancel()


def _start(reference: str, space: Workspace, events: EventSource, labels: LabelSource | None) -> None:
    # Ctrl-C goes to all processes; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["POLARS_MAX_THREADS"] = "1"
    plan = compile_plan(load_pipeline(reference))
    _OF_THIS_PROCESS[:] = [Computation(plan, space, events, labels)]


def _call(method: str, arguments: tuple[int, ...]) -> Any:
    return getattr(_OF_THIS_PROCESS[0], method)(*arguments)
