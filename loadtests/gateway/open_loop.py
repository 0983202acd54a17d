"""An open loop: when each call is due, and what its latency is counted from. Pure.

A closed loop waits for an answer before it asks again, so it asks less just when the server is slow, and its latencies
leave out the callers that would have come meanwhile ("coordinated omission"). Here callers come when they come: each
latency is counted from the moment at which the call was due, whether or not the client managed to send it then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Arrivals = Literal["poisson", "constant"]

PERCENTILES = (50.0, 95.0, 99.0, 99.9)
WARM = 0.1
"""Share of the calls, the first ones, that do not count."""


def arrivals(rate: float, count: int, kind: Arrivals, seed: int = 0) -> npt.NDArray[np.float64]:
    """When each of `count` calls is due.

    Args:
        rate: calls a second.
        count: how many.
        kind: "poisson" for callers that know nothing of each other, "constant" for even distances.
        seed: of the former.

    Returns:
        Seconds from the beginning, rising, float64 (count,).

    Raises:
        ValueError: the rate is not above 0.
    """
    if rate <= 0:
        raise ValueError(f"{rate} calls a second: the rate must be above 0")
    if kind == "constant":
        return np.arange(count) / rate
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


@dataclass(frozen=True)
class Latencies:
    """What callers saw at an offered load.

    Attributes:
        offered: calls a second that were due.
        answered: calls a second that had an answer.
        failed: share of the calls that had none.
        percentiles_ms: of the latency of those that had one, in the order of `PERCENTILES`, in milliseconds.
    """

    offered: float
    answered: float
    failed: float
    percentiles_ms: tuple[float, ...]

    @property
    def p50_ms(self) -> float:
        """The median."""
        return self.percentiles_ms[PERCENTILES.index(50.0)]

    @property
    def p99_ms(self) -> float:
        """The 99th percentile."""
        return self.percentiles_ms[PERCENTILES.index(99.0)]


def latencies(due_s: npt.NDArray[np.float64], ended_s: npt.NDArray[np.float64]) -> Latencies:
    """Latencies of calls, without those of the warm-up.

    Args:
        due_s: when each was due, in seconds, rising.
        ended_s: when each had its answer, in seconds; NaN where it had none.

    Raises:
        ValueError: the two differ in length, or nothing is left.
    """
    if len(due_s) != len(ended_s):
        raise ValueError(f"{len(due_s)} calls were due, and {len(ended_s)} ended")
    first = round(WARM * len(due_s))
    due, ended = due_s[first:], ended_s[first:]
    answered = ~np.isnan(ended)
    if len(due) < 2 or not answered.any():
        raise ValueError(f"{int(answered.sum())} of {len(due)} calls were answered: too few to say how long they took")
    span = float(due[-1] - due[0])
    found = np.percentile((ended - due)[answered] * 1e3, PERCENTILES)
    lasted = float(np.nanmax(ended) - due[0])
    return Latencies(
        offered=(len(due) - 1) / span,
        answered=float(answered.sum()) / max(span, lasted),
        failed=1 - float(answered.mean()),
        percentiles_ms=tuple(found.tolist()),
    )


def middle(runs: Sequence[Latencies]) -> Latencies:
    """The run whose p99 is the median of all of them."""
    return sorted(runs, key=lambda one: one.p99_ms)[(len(runs) - 1) // 2]
