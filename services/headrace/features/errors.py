"""What can stop the stream processor."""

from __future__ import annotations

from headrace.platform.errors import OperatorError


class FenceMovedError(Exception):
    """A fence in Redis is not where this worker left it: another worker took over, or Redis lost its last writes.

    The worker seeks again from the fence.
    """

    def __init__(self, source: str, expected: int, found: str) -> None:
        super().__init__(f"the fence of {source} is at {found}, this worker left it at {expected}")
        self.source = source


class ErasedMeanwhileError(FenceMovedError):
    """Something was erased between reading and writing. The worker reads again, and leaves out what was erased."""

    def __init__(self, source: str, fence: int) -> None:
        super().__init__(source, fence, f"{fence}, but something was erased meanwhile")


class StateUnusableError(OperatorError):
    """State and topic do not belong together, and going on would be wrong. The message names the repair command."""


class StalledError(OperatorError):
    """The worker makes no progress: it ends, and the next one starts from what is stored."""

    retriable = True
