"""How far a long task has come."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""


def untold(done: int, total: int) -> None:
    """For when nobody wants to know."""
