"""The batcher's window against fixed ones, simulated on a virtual clock: `python -m loadtests.gateway.batching`.

A server takes `a + b * rows` for a call, as Triton does on a CPU, with 10 % of noise; requests come as a Poisson
process or in bursts. Each setting is run with the adaptive window and with a row of fixed ones; what counts is the
adaptive one's mean and p99 latency as a ratio to the best fixed one's for that very setting. Same seeds, same figures,
anywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.gateway.batching import Batcher
from loadtests import virtual_clock

MAX_ROWS = 256
IN_FLIGHT = 2
WARM_UP = 0.3
WINDOWS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Fixed windows, as multiples of the time of a call with one row."""
LOADS = {"low": 0.05, "middle": 0.4, "high": 0.8}
"""Rows offered, as shares of what the server does in full batches."""


@dataclass(frozen=True)
class Server:
    """What takes the calls.

    Attributes:
        a_s: time of a call, in seconds.
        b_s: time of a row, in seconds.
        instances: calls it does at once; others wait in its queue, first come first served.
        wire_s: time on the way to it and back together, in seconds, in which it can do other calls.
    """

    a_s: float
    b_s: float
    instances: int = 1
    wire_s: float = 0.0

    @property
    def capacity(self) -> float:
        """Rows a second, in full batches."""
        return self.instances * MAX_ROWS / (self.a_s + self.b_s * MAX_ROWS)


@dataclass(frozen=True)
class Latency:
    """Of requests, in seconds."""

    mean: float
    p99: float


async def _serve(server: Server, arrivals: Sequence[float], rows: int, window_s: float | None, seed: int) -> Latency:
    loop = asyncio.get_running_loop()
    noise = random.Random(seed)
    instances = asyncio.Semaphore(server.instances)

    async def process(_: None, blocks: list[int]) -> list[int]:
        await asyncio.sleep(server.wire_s / 2)
        async with instances:
            await asyncio.sleep((server.a_s + server.b_s * sum(blocks)) * noise.lognormvariate(-0.005, 0.1))
        await asyncio.sleep(server.wire_s / 2)
        return blocks

    batches: Batcher[None, int, int] = Batcher(
        process, name="rows", max_rows=MAX_ROWS, max_queued_rows=10**9, max_in_flight=IN_FLIGHT, window_s=window_s
    )
    took: list[float] = []

    async def ask(came: float) -> None:
        await batches.submit(None, rows, rows)
        took.append(loop.time() - came)

    async with asyncio.TaskGroup() as tasks:
        for came in arrivals:
            await asyncio.sleep(came - loop.time())
            tasks.create_task(ask(came))
    counted = sorted(took[int(len(took) * WARM_UP) :])
    return Latency(sum(counted) / len(counted), counted[int(len(counted) * 0.99)])


def arrivals(rate: float, requests: int, *, bursty: bool, seed: int) -> list[float]:
    """When requests come, in seconds: a Poisson process, or one whose rate is three times as high for a quarter of the
    time (phases of 10 ms on average) and a third as high for the rest.
    """
    chance = random.Random(seed)
    now, until, high, times = 0.0, 0.0, False, list[float]()
    while len(times) < requests:
        if not bursty:
            now += chance.expovariate(rate)
            times.append(now)
            continue
        if now >= until:
            high = not high
            until = now + chance.expovariate(1 / (0.01 if high else 0.03))
        step = chance.expovariate(rate * (3 if high else 1 / 3))
        if now + step < until:
            now += step
            times.append(now)
        else:
            now = until
    return times


def latency(
    server: Server, load: float, window_s: float | None, *, bursty: bool, requests: int = 12_000, seed: int = 1
) -> Latency:
    """Latency of requests at an offered load.

    Args:
        server: what takes the calls.
        load: rows offered, as a share of the server's capacity.
        window_s: of the batcher, in seconds; None for the adaptive one.
        bursty: whether they come in bursts.
        requests: how many.
        seed: of arrivals and noise.
    """
    # At high rates requests bring more rows each, or there would be too few batches in a run.
    rows = 1 if load <= 0.1 else 8
    times = arrivals(load * server.capacity / rows, requests, bursty=bursty, seed=seed)
    return virtual_clock.run(_serve(server, times, rows, window_s, seed))


@dataclass(frozen=True)
class Comparison:
    """The adaptive window beside the best fixed ones, each of its own setting."""

    adaptive: Latency
    best: Latency
    windows: tuple[float, float]
    """The best fixed window for the mean, and for p99, as multiples of the time of a call with one row."""

    @property
    def ratios(self) -> tuple[float, float]:
        """Adaptive to best fixed: mean, p99."""
        return self.adaptive.mean / self.best.mean, self.adaptive.p99 / self.best.p99


def compare(
    server: Server,
    load: float,
    *,
    bursty: bool,
    windows: Sequence[float] = WINDOWS,
    requests: int = 12_000,
    seed: int = 1,
) -> Comparison:
    """Run one setting with all windows."""
    adaptive = latency(server, load, None, bursty=bursty, requests=requests, seed=seed)
    unit = server.a_s + server.b_s
    fixed = {
        window: latency(server, load, window * unit, bursty=bursty, requests=requests, seed=seed) for window in windows
    }
    by_mean = min(fixed, key=lambda window: fixed[window].mean)
    by_p99 = min(fixed, key=lambda window: fixed[window].p99)
    return Comparison(adaptive, Latency(fixed[by_mean].mean, fixed[by_p99].p99), (by_mean, by_p99))


SERVERS = {
    "0.3 ms + 2 µs": Server(0.3e-3, 2e-6),
    "2 ms + 20 µs": Server(2e-3, 20e-6),
    "0.3 ms + 2 µs, wire 0.3 ms": Server(0.3e-3, 2e-6, wire_s=0.3e-3),
    "2 ms + 20 µs, two instances": Server(2e-3, 20e-6, instances=2),
}


def main() -> None:
    """Print the table of docs/decisions/0008."""
    parser = argparse.ArgumentParser(description="The adaptive window beside fixed ones.")
    parser.add_argument("--seed", type=int, default=1, help="of arrivals and noise")
    seed = parser.parse_args().seed
    print("| server | arrivals | load | mean, ms | best fixed | ratio | p99, ms | best fixed | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, server in SERVERS.items():
        for kind, bursty in (("Poisson", False), ("bursts", True)):
            for level, load in LOADS.items():
                one = compare(server, load, bursty=bursty, seed=seed)
                mean, p99 = one.ratios
                print(
                    f"| {name} | {kind} | {level} | {one.adaptive.mean * 1e3:.2f} | {one.best.mean * 1e3:.2f} "
                    f"({one.windows[0]:g} ×) | {mean:.2f} | {one.adaptive.p99 * 1e3:.2f} | {one.best.p99 * 1e3:.2f} "
                    f"({one.windows[1]:g} ×) | {p99:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
