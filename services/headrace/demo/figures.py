"""How the figures of a report read: units, digits, and what counts as a fault."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from headrace.pipeline import DAY, HOUR, MINUTE, SECOND

NONE = "–"
DAY_SECONDS = 86_400


def count(value: float | None) -> str:
    """A number of things, with thousands set apart."""
    return NONE if value is None else f"{value:,.0f}"


def decimal(value: float | None) -> str:
    """A measure between 0 and 1."""
    return NONE if value is None else f"{value:.3f}"


def milliseconds(value: float | None) -> str:
    """Milliseconds, as seconds from one second on."""
    if value is None:
        return NONE
    return f"{value:.3g} ms" if value < 1000 else seconds(value / 1000)


def seconds(value: float | None) -> str:
    """Seconds, with one digit from ten on and none from a hundred on."""
    if value is None:
        return NONE
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def in_words(duration: int) -> str:
    """A duration in microseconds: "14 days", "1 hour"."""
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if duration % unit == 0:
            return f"{duration // unit:,} {name}{'' if duration == unit else 's'}"
    return f"{duration / SECOND:g} seconds"


def season_name(season_seconds: float) -> str:
    """What a season of that length is called."""
    return "day" if season_seconds == DAY_SECONDS else "season"


def moment(begin: str, season_seconds: float) -> str:
    """When a season begins, of its ISO date and time in UTC: the day alone where seasons are whole days."""
    time = dt.datetime.fromisoformat(begin)
    return f"{time:%Y-%m-%d}" if season_seconds % DAY_SECONDS == 0 else f"{time:%Y-%m-%d %H:%M}"


def faults(report: Mapping[str, Any]) -> list[str]:
    """What a correct replay does not have, one phrase each; empty when all is well."""
    named = {
        "predictions missing": report["predictions_missing"],
        "predictions duplicated": report["predictions_duplicated"],
        "outcomes missing": report["outcomes_missing"],
        "outcomes duplicated": report["outcomes_duplicated"],
        "failed requests": report["failed_requests"],
        "feature vectors that differ from their recomputation": report["feature_parity"]["rows_different"],
    }
    if report["lockstep"]:
        named["feature vectors behind full knowledge"] = report["feature_parity"]["rows_stale"]
    return [f"{count(value)} {name}" for name, value in named.items() if value]
