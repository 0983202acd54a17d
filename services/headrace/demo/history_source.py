"""Where the history of a pipeline comes from: a file, or the simulation beside its declaration.

Beside `pipelines/NAME.py` lies `pipelines/NAME_history.py`, which may have

- `simulate(events: int, seed: int)`: a table of `events` simulated events, see `tables`;
- `read(path: Path, events: int | None)`: a table, or a `History`, of a file that has a form of its own;
- `WORDS`: what events and positives are called in a report.

The same seed must give the same table.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl

from headrace.demo.errors import SourceError
from headrace.demo.history import History, Words
from headrace.demo.tables import history_of, read_table
from headrace.pipeline import Pipeline
from headrace.platform.pipelines import load_beside

SUFFIX = "_history"


def load_history(reference: str, pipeline: Pipeline, source: Path | None, events: int | None, seed: int = 0) -> History:
    """The history to replay.

    Args:
        reference: What the pipeline was loaded from.
        pipeline: The declaration.
        source: A file; None for the simulation.
        events: At most so many events of a file, the earliest; so many of the simulation.
        seed: Of the simulation.

    Raises:
        SourceError: There is no simulation, or the file or its contents cannot be used.
        PipelineLoadError: The module with the simulation does not run.
    """
    if events is not None and events < 1:
        raise SourceError("EVENTS", f"is {events}, allowed is 1 or more")
    module = load_beside(reference, SUFFIX)
    words = getattr(module, "WORDS", None) or Words()
    if source is not None:
        read = getattr(module, "read", None)
        if read is None:
            return read_table(source, pipeline, events)
        return _history(str(source), read(source, events), pipeline, events, words)
    simulate = getattr(module, "simulate", None)
    if simulate is None:
        raise SourceError(
            f"pipeline {pipeline.name}",
            "has no simulation: name a file by SOURCE, or write simulate(events, seed) into "
            + _beside(reference, module),
        )
    return _history(f"simulator, seed {seed}", simulate(events, seed), pipeline, events, words)


def _beside(reference: str, module: ModuleType | None) -> str:
    if module is not None:
        return str(module.__file__)
    return f"{reference.removesuffix('.py')}{SUFFIX}.py"


def _history(name: str, found: Any, pipeline: Pipeline, events: int | None, words: Words) -> History:
    if isinstance(found, History):
        return found
    if not isinstance(found, pl.DataFrame):
        raise SourceError(name, f"gave a {type(found).__name__}; it must be a polars.DataFrame")
    return history_of(name, found, pipeline, events, words)
