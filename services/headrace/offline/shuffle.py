"""Rows on disk, cut into buckets of keys: each part of a table is written once, and read bucket by bucket."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

SEED = 20_011
BATCH_ROWS = 4096
"""Rows that are read together: a bucket's share of a part is read without the rest of it."""


def bucket_of(keys: pl.Series, buckets: int) -> pl.Series:
    """The bucket of each key; equal keys have equal ones in every process."""
    return keys.hash(SEED) % buckets


def write_part(path: Path, table: pl.DataFrame, by: str, buckets: int) -> None:
    """Write one part of a table.

    Args:
        path: where to; a second file beside it says where the buckets begin.
        table: rows, whose order within a bucket is kept.
        by: the column whose values are told apart.
        buckets: how many there are.
    """
    numbers = bucket_of(table[by], buckets).to_numpy()
    order = np.argsort(numbers, kind="stable")
    table[order].write_ipc(path, compression="uncompressed", record_batch_size=BATCH_ROWS)
    np.save(path.with_suffix(".npy"), np.searchsorted(numbers[order], np.arange(buckets + 1)))


def read_bucket(paths: Sequence[Path], bucket: int) -> pl.DataFrame:
    """The rows of one bucket, in the order of the parts."""
    parts: list[pl.DataFrame] = []
    for path in paths:
        edges = np.load(path.with_suffix(".npy"), mmap_mode="r")
        start, end = int(edges[bucket]), int(edges[bucket + 1])
        parts.append(pl.scan_ipc(path).slice(start, end - start).collect())
    return pl.concat(parts)
