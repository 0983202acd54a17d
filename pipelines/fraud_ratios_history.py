"""Where the payments of a demonstration of this pipeline come from: from where those of `fraud.py` do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.demo.payments import load_source

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.demo.history import History


def simulate(events: int, seed: int) -> History:
    """Card payments by the published rules of the Fraud Detection Handbook."""
    return load_source(None, events, seed).history()


def read(path: Path, events: int | None) -> History:
    """The earliest payments of a file with the handbook's raw columns."""
    return load_source(path, events).history()
