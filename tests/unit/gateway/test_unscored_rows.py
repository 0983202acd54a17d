"""Rows that got no score are kept for a minute, the newest few of the newest few versions."""

from __future__ import annotations

import numpy as np

from headrace.gateway.unscored_rows import KEPT_S, ROWS_KEPT, VERSIONS_KEPT, UnscoredRows


def test_the_newest_rows_are_kept_for_a_minute() -> None:
    now = 0.0
    kept = UnscoredRows(lambda: now)
    assert kept.by_version() == {}
    kept.add("000001", np.arange(2 * (ROWS_KEPT + 3), dtype=np.float32).reshape(-1, 2))
    (rows,) = kept.by_version().values()
    assert (len(rows), rows[0]) == (ROWS_KEPT, [6.0, 7.0])
    now = KEPT_S / 2
    for number in range(2, VERSIONS_KEPT + 2):
        kept.add(f"{number:06d}", np.array([[np.nan, 1.5]], np.float32))
    assert list(kept.by_version()) == [f"{number:06d}" for number in range(2, VERSIONS_KEPT + 2)]
    now = KEPT_S + 1
    assert len(kept.by_version()) == VERSIONS_KEPT
    now = 2 * KEPT_S
    assert kept.by_version() == {}
