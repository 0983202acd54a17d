"""River's data sets as histories of a replay: rows at equal distances of time, each label a second after its event."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

from headrace.pipeline import HOUR, SECOND
from loadtests.learning.river_rows.data import FOLDER, load

START_US = 1_600_000_000_000_000 // HOUR * HOUR
FOLDER_VARIABLE = "RIVER_DATA"


def simulate(name: str, events: int, seed: int) -> pl.DataFrame:
    """The first rows of a data set, in their order; nothing is left to the seed."""
    data = load(name, Path(os.environ.get(FOLDER_VARIABLE, FOLDER)))
    numbers = np.arange(min(events, len(data)))
    times = START_US + numbers * HOUR // data.declared.per_step
    return pl.DataFrame(
        {
            "event_id": [f"{number:05d}" for number in numbers],
            "event_time": times,
            "row": [f"r{number}" for number in numbers],
            **dict(zip(data.declared.features, data.rows[: len(numbers)].T, strict=True)),
            "label": data.labels[: len(numbers)].astype(float),
            "label_time": times + SECOND,
        }
    )
