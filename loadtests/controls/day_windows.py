"""What the stream jobs of the controls compute: counts and means over whole days, as their users would write it.

An entity's state is a list of `[day, count, cents]`, the oldest day first. The windows are the last 1, 7 and 30 days
including today, so their trailing edge moves by a day where Headrace's is exact to the second; a terminal's end a week
earlier. There are no labels, no fences, and no duplicates are told apart.
"""

from __future__ import annotations

from headrace.v1.event_pb2 import Event
from headrace.v1.vector_pb2 import FeatureVector

DAY_US = 86_400_000_000
WINDOWS = (1, 7, 30)
DELAY = 7

Buckets = list[list[int]]


def decode(value: bytes) -> tuple[str, int, str, str, int]:
    """Event id, day, customer, terminal and cents of an event."""
    event = Event.FromString(value)
    customer, terminal = event.texts
    return event.event_id, event.event_time_us // DAY_US, customer, terminal, int(event.numbers[0])


def encode(event_id: str, day: int, customer: str, terminal: str, values: list[float]) -> bytes:
    """A vector."""
    vector = FeatureVector(event_id=event_id, event_time_us=day * DAY_US, values=values, entities=[customer, terminal])
    return vector.SerializeToString()


def add(buckets: Buckets, day: int, cents: int, keep: int) -> None:
    """Add an event, and drop the days that no window reaches any more."""
    if buckets and buckets[-1][0] >= day:
        buckets[-1][1] += 1
        buckets[-1][2] += cents
    else:
        buckets.append([day, 1, cents])
        while buckets[0][0] <= day - keep:
            del buckets[0]


def customer_values(buckets: Buckets, day: int, cents: int) -> list[float]:
    """Count and mean of the three windows after adding an event."""
    add(buckets, day, cents, WINDOWS[-1])
    count = total = 0
    values: list[float] = []
    at = len(buckets) - 1
    for window in WINDOWS:
        while at >= 0 and buckets[at][0] > day - window:
            count += buckets[at][1]
            total += buckets[at][2]
            at -= 1
        values += (count, total / count / 100)
    return values


def terminal_values(buckets: Buckets, day: int) -> list[float]:
    """Count of the three windows that end a week ago, after adding an event."""
    add(buckets, day, 0, WINDOWS[-1] + DELAY)
    at = len(buckets) - 1
    while at >= 0 and buckets[at][0] > day - DELAY:
        at -= 1
    count = 0
    values: list[float] = []
    for window in WINDOWS:
        while at >= 0 and buckets[at][0] > day - DELAY - window:
            count += buckets[at][1]
            at -= 1
        values.append(count)
    return values
