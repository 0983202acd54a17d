"""Vectors of events from the stored logs of their keys: in machine code where that can be, else by `windows`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np

from headrace.pipeline.compiled.tables import Tables
from headrace.pipeline.events import EventColumns, FloatArray
from headrace.pipeline.state import FeaturePlan
from headrace.pipeline.stored_logs import EntityLogs
from headrace.pipeline.windows import evaluate

Kernel = Callable[..., int]

MACHINE_CODE = "machine-code"
"""Name of the folder in a service's state directory."""

_NONE = np.zeros(0, np.int64)


@cache
def load_kernel(folder: Path | None = None) -> Kernel | None:
    """The machine code that windows are evaluated with: read from where it was kept, or else made, which takes seconds.

    Args:
        folder: where it is kept when the folder of this package cannot be written to; where neither can, it is made
            at each start.

    Returns:
        None where numba is not installed, or where integers are not stored as in the logs: numpy does all of it then,
        with the same results.
    """
    if sys.byteorder != "little":
        return None
    try:
        from headrace.pipeline.compiled import kernel
    except ImportError:
        return None
    return kernel.load(folder)


class Evaluator:
    """Evaluates the features of a pipeline for events and the stored logs of their keys."""

    def __init__(self, plan: FeaturePlan, kernel: Kernel | None) -> None:
        """Args:
        plan: the compiled pipeline.
        kernel: what `load_kernel` gave; None to do without machine code.
        """
        self.plan = plan
        self._kernel = kernel
        self._all = Tables(plan.entities)
        self._each = [Tables((entity,)) for entity in plan.entities]

    def vectors(self, events: EventColumns, logs: Sequence[EntityLogs]) -> FloatArray:
        """The vectors of n events, shape (n, width).

        The logs may hold any records, those of the events themselves too: a window without delay takes the records
        before the event, and adds the event itself.

        Args:
            events: the events.
            logs: one for each entity of the plan, in its order.
        """
        out = np.empty((len(events), self.plan.width))
        self.plan.on_demand_values(events, out)
        if any(of.more is not None for of in logs):
            for tables, of in zip(self._each, logs, strict=True):
                self._fill(tables, events, [of], out)
        else:
            self._fill(self._all, events, logs, out)
        self.plan.derived_values(out)
        return out

    def steps(self, events: EventColumns, logs: Sequence[EntityLogs], out: FloatArray) -> Iterator[None]:
        """The same step by step, for a caller that has other work to see to in between.

        Args:
            events: the events.
            logs: one for each entity of the plan, in its order.
            out: filled when the last step is done, shape (n, width).
        """
        self.plan.on_demand_values(events, out)
        yield
        for tables, of in zip(self._each, logs, strict=True):
            self._fill(tables, events, [of], out)
            yield
        self.plan.derived_values(out)

    def _fill(self, tables: Tables, events: EventColumns, logs: Sequence[EntityLogs], out: FloatArray) -> None:
        """Fill the columns of the entities of the tables; a pipeline without windows has none."""
        if not logs:
            return
        if self._kernel is None:
            for of in logs:
                evaluate(of.plan, events, of.state(), out[:, of.plan.columns])
            return
        n = len(events)
        values: list[bytes] = []
        for of in logs:
            values += of.events
            values += of.labels
        sizes = chain([len(of.events) for of in logs], map(len, values))
        layout = np.fromiter(sizes, np.int64, len(logs) + len(values))
        more = _NONE
        if len(logs) == 1:
            slots = logs[0].slots
            if logs[0].more is not None and logs[0].more_slots is not None:
                values.append(logs[0].more.tobytes())
                more = logs[0].more_slots
        else:
            slots = np.concatenate([of.slots for of in logs])
        # A bytearray, because what can be written to is quicker to hand over.
        raw = np.frombuffer(bytearray().join(values), np.uint8)
        parts = np.empty((n, tables.parts), np.int64)
        skipped = self._kernel(*tables.arrays, raw, layout, slots, more, events.times, tables.given(events), out, parts)
        for number, of in enumerate(logs):
            if skipped >> number & 1:
                evaluate(of.plan, events, of.state(), out[:, of.plan.columns])
            else:
                tables.finish(number, parts, events.times, out)
