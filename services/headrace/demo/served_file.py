"""The vectors that were served in a replay, as a file that `headrace features parity --served` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.demo.recording import Recording
from headrace.pipeline import Pipeline

NAME = "served.parquet"


def write_served(recording: Recording, pipeline: Pipeline, folder: Path) -> Path:
    """Write the features of every first answer, in the order of the events, with the state positions of each.

    Args:
        recording: what was read back.
        pipeline: names the features.
        folder: where the file goes; an older one is replaced whole.

    Returns:
        The path of the file.
    """
    rows = np.flatnonzero(recording.answers > 0)
    table = pl.DataFrame(
        {
            "event_id": [recording.history.ids[row] for row in rows.tolist()],
            "event_time": pl.Series(recording.history.times[rows]).cast(pl.Datetime("us", "UTC")),
            **{
                name: np.ascontiguousarray(recording.features[rows, column])
                for column, name in enumerate(pipeline.feature_names)
            },
            "event_positions": _lists(recording.event_positions[rows]),
            "outcome_positions": _lists(recording.outcome_positions[rows]),
        },
        schema_overrides={"event_id": pl.String},
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    new = path.with_suffix(".new")
    table.write_parquet(new)
    new.replace(path)
    return path


def _lists(positions: npt.NDArray[np.int64]) -> pl.Series:
    return pl.Series(positions, dtype=pl.Array(pl.Int64, positions.shape[1])).cast(pl.List(pl.Int64))
