"""What a replay shows while it runs: a bar and the counts of each stage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from headrace.demo.quality import average_precision
from headrace.demo.recording import Recording

REFRESH_S = 0.25
QUALITY_EVERY_S = 2.0
LINE_EVERY_S = 10.0
RECENT = 20_000


@asynccontextmanager
async def shown(recording: Recording, console: Console) -> AsyncIterator[None]:
    """Show the progress of a replay while the block runs: a live bar on a terminal, a line now and then elsewhere."""
    live = console.is_terminal
    total = 2 * len(recording.history)
    bar = Progress(
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        disable=not live,
    )
    with bar:
        task = bar.add_task("starting", total=total)

        async def refresh() -> None:
            quality, measured, printed = "", 0.0, time.monotonic()
            while True:
                if time.monotonic() - measured > QUALITY_EVERY_S:
                    quality, measured = _quality(recording), time.monotonic()
                counts = recording.counts
                text = (
                    f"events {counts.events:,} · predictions {counts.predictions:,} · labels {counts.labels:,} · "
                    f"learned {counts.learned:,} · version {int(recording.champion or 0)}{quality}"
                )
                bar.update(task, completed=counts.predictions + counts.outcomes, description=text)
                if not live and time.monotonic() - printed > LINE_EVERY_S:
                    console.print(text)
                    printed = time.monotonic()
                await asyncio.sleep(REFRESH_S)

        refreshing = asyncio.create_task(refresh(), name="progress")
        try:
            yield
        finally:
            refreshing.cancel()
            await asyncio.wait({refreshing})


def _quality(recording: Recording) -> str:
    """Average precision over the most recent labelled events."""
    rows = np.flatnonzero((recording.answers > 0) & ~np.isnan(recording.label))[-RECENT:]
    value = average_precision(recording.label[rows] == 1, recording.score[rows]) if len(rows) else None
    return "" if value is None else f" · average precision {value:.3f}"
