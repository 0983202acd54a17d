"""How memory grows over a soak, from samples. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

WARM_UP = 0.2
"""Share of the time after which caches and pools have their size."""
EDGE = 0.1
"""Share of the rest, at its beginning and at its end, whose medians are compared."""


@dataclass(frozen=True)
class Sample:
    """What was in RAM at a moment.

    Attributes:
        at_s: seconds since the load began.
        resident: bytes.
    """

    at_s: float
    resident: int


def growth(samples: Sequence[Sample]) -> tuple[float, float, float]:
    """How much memory grew after the warm-up.

    Args:
        samples: rising in time, over the whole soak.

    Returns:
        Bytes at the beginning (after the warm-up), bytes at the end, and the growth between as a share of the former.

    Raises:
        ValueError: too few samples lie after the warm-up.
    """
    after = [one for one in samples if one.at_s >= WARM_UP * samples[-1].at_s] if samples else []
    edge = max(3, round(EDGE * len(after)))
    if len(after) < 2 * edge:
        raise ValueError(f"{len(after)} samples after the warm-up: too few to compare its beginning with its end")
    begin, end = (median(one.resident for one in part) for part in (after[:edge], after[-edge:]))
    return begin, end, end / begin - 1
