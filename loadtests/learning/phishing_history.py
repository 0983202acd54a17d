"""River's Phishing data as the history of a replay: a row a minute, each label a second after its event."""

from __future__ import annotations

import polars as pl

START_US = 1_600_000_000_000_000 - 1_600_000_000_000_000 % 3_600_000_000
MINUTE_US = 60_000_000
SECOND_US = 1_000_000


def simulate(events: int, seed: int) -> pl.DataFrame:
    """The first `events` rows, in their order; nothing is left to the seed."""
    from river import datasets

    rows = []
    for number, (x, y) in zip(range(events), datasets.Phishing(), strict=False):
        time_us = START_US + number * MINUTE_US
        rows.append(
            {
                "event_id": f"{number:05d}",
                "event_time": time_us,
                "site": f"s{number}",
                **{name: float(value) for name, value in x.items()},
                "label": float(y),
                "label_time": time_us + SECOND_US,
            }
        )
    return pl.DataFrame(rows)
