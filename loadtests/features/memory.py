"""What the state costs as it grows: Redis bytes per key and CPU per event, by windows, keys and events per key.

`python -m loadtests.features.memory`
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.pipeline import (
    DAY,
    SECOND,
    Decision,
    Entity,
    EventSchema,
    FeatureView,
    Label,
    Model,
    Money,
    Monitoring,
    Pipeline,
    Text,
    count,
    mean,
)
from headrace.pipeline.features import Aggregation
from headrace.pipeline.state import compile_plan
from headrace.platform.event_codec import CheckedEvent, pack_event
from loadtests.features.arguments import Options, part
from loadtests.features.engine import Engine, engine
from loadtests.figures import Figure, figure
from loadtests.machine import on, share_cores
from loadtests.servers import servers

START_US = 1_700_000_000_000_000
SPAN = 20 * DAY
"""All events lie within the windows: nothing is trimmed."""
EVENTS = 100_000
QUICK_EVENTS = 10_000
MEASURED = 0.2
"""Share of the events, the last ones, whose cost counts: by then the state is as large as it gets."""
SAMPLE = 200


@dataclass(frozen=True)
class Shape:
    """One row of the table: a view of one entity.

    Attributes:
        windows: number of windows, each with a count and a mean.
        keys: number of ids.
        events_per_key: events that each has.
        hop: of every window, in microseconds; above one second old events are coarsened.
    """

    windows: int
    keys: int
    events_per_key: int
    hop: int = SECOND

    def describe(self) -> str:
        """For the name of a figure."""
        hop = "" if self.hop == SECOND else f", hop {self.hop // SECOND:,} s"
        return f"{self.windows} windows, {self.keys:,} keys, {self.events_per_key:,} events per key{hop}"

    def pipeline(self) -> Pipeline:
        """A pipeline with one view of this shape."""
        lengths = np.linspace(1, 30, self.windows).round().astype(int).tolist() if self.windows > 1 else [30]
        made = (make(days * DAY) for days in lengths for make in (self._count, self._mean))
        return Pipeline(
            "bench",
            event=EventSchema(Text("customer_id"), Money("amount_cents", maximum=1_000_000_00)),
            entities=[Entity("customer", "customer_id")],
            key="customer",
            features=[FeatureView("customer", *made)],
            label=Label(horizon=30 * DAY),
            model=Model("none", _no_model, Decision(threshold=0.5)),
            monitoring=Monitoring(),
        )

    def _count(self, window: int) -> Aggregation:
        return count(window, hop=self.hop)

    def _mean(self, window: int) -> Aggregation:
        return mean("amount_cents", window, hop=self.hop)


def shapes(events: int) -> Iterator[Shape]:
    """Windows grow, then keys, then events per key; each with the same number of events."""
    each = events // 1000
    for windows in (1, 3, 6, 12):
        yield Shape(windows, 1000, each)
    for keys in (100, 10_000):
        yield Shape(3, keys, max(1, events // keys))
    for per_key in (events // 10,):
        yield Shape(3, 10, per_key)
        yield Shape(3, 10, per_key, 600 * SECOND)


async def memory(options: Options) -> list[Figure]:
    """Measure; see the module."""
    cores = share_cores()
    figures: list[Figure] = []
    with servers(cores.rest, kafka=False) as kept, on(cores.measured):
        for number, shape in enumerate(shapes(QUICK_EVENTS if options.quick else EVENTS)):
            plan = compile_plan(shape.pipeline())
            async with engine(kept.redis_url, plan, f"bench-{number}") as one:
                cost = await _fill(one, plan.pipeline, shape)
                size = await _bytes_per_key(one, shape)
            figures.append(figure(f"Redis bytes per key, {shape.describe()}", size, "B", better="lower"))
            figures.append(figure(f"CPU per event, {shape.describe()}", cost, "µs", better="lower"))
    return figures


async def _fill(one: Engine, pipeline: Pipeline, shape: Shape) -> float:
    """Merge the events; returns the CPU time per event of the last ones, in microseconds."""
    batches = one.batches(_events(pipeline, shape))
    measured = round((1 - MEASURED) * len(batches))
    for batch in batches[:measured]:
        await one.handle(batch)
    began = time.process_time()
    for batch in batches[measured:]:
        await one.handle(batch)
    return (time.process_time() - began) / sum(map(len, batches[measured:])) * 1e6


def _events(pipeline: Pipeline, shape: Shape) -> Sequence[tuple[bytes, bytes]]:
    total = shape.keys * shape.events_per_key
    random = np.random.default_rng(0)
    times = START_US + np.sort(random.integers(0, SPAN // SECOND, total)) * SECOND
    # Every key has the same number of events, in a random order.
    keys = random.permutation(np.repeat(np.arange(shape.keys), shape.events_per_key))
    amounts = random.integers(1, 100_000, total)
    made = []
    for at, (time_us, key, cents) in enumerate(zip(times.tolist(), keys.tolist(), amounts.tolist(), strict=True)):
        event = CheckedEvent(str(at), time_us, [str(key)], [float(cents)], answered=False)
        made.append((str(key).encode(), pack_event(pipeline, event).SerializeToString()))
    return made


async def _bytes_per_key(one: Engine, shape: Shape) -> float:
    """What Redis needs for a key with its name and its place in the table, from a sample."""
    prefix = one.reader.keys.event_log("customer")
    step = max(1, shape.keys // SAMPLE)
    sizes = [await one.client.memory_usage(f"{prefix}{key}", samples=0) or 0 for key in range(0, shape.keys, step)]
    return sum(sizes) / len(sizes)


def _no_model() -> None:
    """Nothing is learned here."""


if __name__ == "__main__":
    part("memory", memory)
