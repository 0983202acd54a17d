"""A progress bar on standard error."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

import click


class ProgressBar:
    """Shows how far a task has come; shows nothing where standard error is no terminal."""

    def __init__(self, what: str) -> None:
        """Args:
        what: the task, in a word or two.
        """
        self._what = what
        self._bar: Any = None
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.render_finish()

    def reached(self, done: int, total: int) -> None:
        """So much of so much is done."""
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            self._bar = click.progressbar(length=total, label=self._what, file=sys.stderr)
            self._bar.render_progress()
        self._bar.update(done - self._done)
        self._done = done
