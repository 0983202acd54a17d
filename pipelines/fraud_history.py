"""Where the payments of a demonstration of the fraud pipeline come from.

`make demo` takes them from `simulate`, `make demo SOURCE=file` from `read`. For a pipeline of your own, copy
`clicks_history.py`: a file with the fields of its events as columns needs no `read`.
"""

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
