"""Every aggregation as its definition reads, in plain Python: what the fast evaluation is tested and compared with.

Each function takes the events that a window covers, in (time, id) order. Sketches are exact here in the same sense as
there: the answer follows from the set of cells, found one event at a time.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache


@dataclass(frozen=True)
class CoveredEvent:
    """An event that a window covers and that has the value asked for.

    Attributes:
        time: in microseconds.
        id: hash of its id.
        value: the field in integer units or as text; 0 for aggregations without a field.
    """

    time: int
    id: int
    value: int | str

    @property
    def number(self) -> int:
        """The value in integer units."""
        assert isinstance(self.value, int)
        return self.value


@dataclass(frozen=True)
class Asked:
    """What is asked of the covered events.

    Attributes:
        now: time of the event that asks, in microseconds.
        delay: of the aggregation, in microseconds.
        scale: integer units to one unit of the field.
        half_life: in microseconds.
        share: of a quantile.
        default: over an empty window.
    """

    now: int
    delay: int
    scale: int
    half_life: int
    share: float
    default: float


def count(events: Sequence[CoveredEvent], asked: Asked) -> float:
    """Number of events."""
    return float(len(events))


def total(events: Sequence[CoveredEvent], asked: Asked) -> float:
    """Sum of the values."""
    return sum(event.number for event in events) / asked.scale


def mean(events: Sequence[CoveredEvent], asked: Asked) -> float:
    """Mean of the values."""
    if not events:
        return asked.default
    return sum(event.number for event in events) / (len(events) * asked.scale)


def minimum(events: Sequence[CoveredEvent], asked: Asked) -> float:
    """The smallest value."""
    return min(event.number for event in events) / asked.scale if events else asked.default


def maximum(events: Sequence[CoveredEvent], asked: Asked) -> float:
    """The largest value."""
    return max(event.number for event in events) / asked.scale if events else asked.default


def std(events: Sequence[CoveredEvent], asked: Asked) -> float:
    """Standard deviation of the population."""
    if not events:
        return asked.default
    middle = Fraction(sum(event.number for event in events), len(events))
    variance = sum((event.number - middle) ** 2 for event in events) / len(events)
    return math.sqrt(float(variance)) / asked.scale


def last(events: Sequence[CoveredEvent], asked: Asked) -> float:
    """The value of the last event."""
    return events[-1].number / asked.scale if events else asked.default


def time_since_last(events: Sequence[CoveredEvent], asked: Asked) -> float:
    """Seconds since the last event."""
    return (asked.now - events[-1].time) / 1e6 if events else asked.default


def decayed_count(events: Sequence[CoveredEvent], asked: Asked) -> float:
    """Sum of the weights 2^(-age / half life)."""
    return math.fsum(_weight(event, asked) for event in events)


def decayed_mean(events: Sequence[CoveredEvent], asked: Asked) -> float:
    """Mean of the values with these weights."""
    weights = math.fsum(_weight(event, asked) for event in events)
    if not weights:
        return asked.default
    return math.fsum(_weight(event, asked) * event.number for event in events) / weights / asked.scale


def distinct(events: Sequence[CoveredEvent], asked: Asked) -> float:
    """HyperLogLog: of each register the highest rank, then Ertl's estimator as it is printed."""
    registers: dict[int, int] = {}
    for event in events:
        hashed = _hash(event.value)
        register, rest = hashed >> 52, hashed & (2**52 - 1)
        registers[register] = max(registers.get(register, 0), 52 - rest.bit_length() + 1)
    of_rank = Counter(registers.values())
    z = 4096 * _tau(1 - of_rank[53] / 4096)
    for rank in range(52, 0, -1):
        z = 0.5 * (z + of_rank[rank])
    if not registers:
        return 0.0
    z += 4096 * _sigma((4096 - len(registers)) / 4096)
    return 4096**2 / (2 * math.log(2)) / z


def quantile(events: Sequence[CoveredEvent], asked: Asked) -> float:
    """DDSketch: the bin of the value at rank floor(share x (n - 1))."""
    if not events:
        return asked.default
    value = sorted(event.number for event in events)[math.floor(asked.share * (len(events) - 1))]
    if not value:
        return 0.0
    border = bisect.bisect_left(_borders(), abs(value))
    middle = Fraction(101, 99) ** border * 2 / (1 + Fraction(101, 99))
    return math.copysign(float(middle), value) / asked.scale


def _weight(event: CoveredEvent, asked: Asked) -> float:
    return float(2.0 ** -((asked.now - asked.delay - event.time) / asked.half_life))


def _hash(value: int | str) -> int:
    if isinstance(value, str):
        return int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little")
    z = (value + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


@cache
def _borders() -> list[int]:
    return [101**i // 99**i for i in range(1840)]


def _sigma(x: float) -> float:
    y, z, previous = 1.0, x, math.nan
    while z != previous:
        x, previous = x * x, z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    if x in {0.0, 1.0}:
        return 0.0
    y, z, previous = 1.0, 1 - x, math.nan
    while z != previous:
        x, previous, y = math.sqrt(x), z, y / 2
        z -= (1 - x) ** 2 * y
    return z / 3
