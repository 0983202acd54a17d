"""A deadline that several calls share. Pure."""

from __future__ import annotations

import time
from typing import Any


class Deadline:
    """A point in time after which an answer is of no use.

    Args:
        at: time of `time.monotonic`, in seconds.
    """

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        self.at = at

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """So many seconds from now."""
        return cls(time.monotonic() + seconds)

    @classmethod
    def of_call(cls, context: Any) -> Deadline | None:
        """The deadline of a gRPC call that is being served, to hand on to the calls it needs; None where it has none.

        Args:
            context: `grpc.ServicerContext` or `grpc.aio.ServicerContext`.
        """
        remaining: float | None = context.time_remaining()
        return None if remaining is None else cls.after(remaining)

    def earlier(self, other: Deadline | None) -> Deadline:
        """The earlier of two."""
        return self if other is None or self.at <= other.at else other

    def remaining(self) -> float:
        """Seconds that are left; 0 when it has passed."""
        return max(0.0, self.at - time.monotonic())

    def __repr__(self) -> str:
        return f"Deadline(in {self.at - time.monotonic():.3f} s)"
