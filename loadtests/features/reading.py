"""Reading the features of an event: latency while a worker writes, what it costs the worker, and CPU beside Feast.

`python -m loadtests.features.reading --events 200000`
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin
from loadtests.environment import control_python
from loadtests.features.arguments import Options, part
from loadtests.features.deployment import Deployment
from loadtests.features.payments import Records, payments, publish, send
from loadtests.features.reader import READY
from loadtests.features.stream import MOST_S, merge_outcomes
from loadtests.figures import Figure, figure
from loadtests.machine import Cores, share_cores
from loadtests.processes import Process, Rate, finish, measure, module, running
from loadtests.servers import Servers, servers

GOAL_P99_US = 1000.0
READ_EVENTS = 2000
READS_PER_S = 200.0
LOADED_READS_PER_S = 1000.0
PACED_S = 15.0
STEP_S = 0.02
LARGEST_CHUNK = 500


@dataclass(frozen=True)
class Reads:
    """What a reader found: percentiles of the latency, and CPU time per row, in microseconds."""

    p50_us: float
    p99_us: float
    cpu_us: float


@dataclass(frozen=True)
class Bench:
    """What the steps share: servers, cores, the payments, and a file with events to read."""

    kept: Servers
    cores: Cores
    made: Records
    events_file: Path
    half: int

    @property
    def all_cores(self) -> frozenset[int]:
        """Every core: a reader that shared one with a broker would wait for it, and not for Redis."""
        return self.cores.measured | self.cores.second | self.cores.rest

    def reader(self, deployment: Deployment, reads: int, rows: int, reads_per_s: float) -> list[str]:
        """The command line of a reader."""
        return module(
            "loadtests.features.reader",
            *(self.kept.redis_url, deployment.topics.deployed, self.events_file, reads, rows, reads_per_s),
        )

    def read(self, deployment: Deployment, reads: int, rows: int) -> Reads:
        """Read as fast as one reader can, while nothing else happens."""
        command = self.reader(deployment, reads, rows, 0)
        return _reads(finish(command, cores=self.all_cores, directory=self.kept.directory, timeout_s=MOST_S))


async def reading(options: Options) -> list[Figure]:
    """Measure; see the module."""
    cores = share_cores()
    every = cores.measured | cores.second | cores.rest
    with servers(every) as kept:
        deployment = Deployment(kept, "bench-read")
        made = Records(deployment.plan.pipeline, payments(options.events, options.source))
        half = len(made) // 2
        events_file = kept.directory / "events.json"
        rows = [made.checked(row) for row in range(max(0, half - READ_EVENTS), half)]
        events_file.write_text(
            json.dumps([[one.event_id, one.time_us, list(one.texts), list(one.numbers)] for one in rows])
        )
        bench = Bench(kept, cores, made, events_file, half)
        await deployment.create()
        await merge_outcomes(deployment, made, cores)
        await publish(kept.bootstrap, deployment.topics.events, made.events[:half])
        top = await _ingest(bench, deployment)
        scale = 10 if options.quick else 1
        single, batch = bench.read(deployment, 5000 // scale, 1), bench.read(deployment, 500 // scale, 100)
        quiet = await _paced_reads(bench, deployment, 0, PACED_S / scale)
        busy = await _paced_reads(bench, deployment, top.by_wall / 2, PACED_S / scale)
        figures = [
            figure(
                "read of one event, p99 while a worker writes at half its top rate",
                busy.p99_us,
                "µs",
                better="lower",
                control=("no worker", quiet.p99_us),
                most=GOAL_P99_US,
            ),
            figure(
                "read of one event, p50 while a worker writes at half its top rate",
                busy.p50_us,
                "µs",
                better="lower",
                control=("no worker", quiet.p50_us),
            ),
        ]
        figures += await _cost_to_the_worker(bench, deployment, top)
        feast = _feast(bench, made, scale) if options.controls else None
        for name, mine, shape, least in (
            ("CPU per row, one event", single, "single", 4.0),
            ("CPU per row, batches of 100", batch, "batch", 10.0),
        ):
            control = ("Feast online read", feast[shape]["cpu_us"]) if feast else None
            figures.append(
                figure(name, mine.cpu_us, "µs", better="lower", control=control, least_ratio=least if feast else None)
            )
        return figures


async def _ingest(bench: Bench, deployment: Deployment, **settings: object) -> Rate:
    """A worker over what is in `events`, at its top rate."""
    async with KafkaAdmin(bench.kept.bootstrap) as admin:
        handled = deployment.committed(admin, "features")
        with deployment.worker(bench.cores.measured, 1, **settings) as worker:
            return await measure([worker], handled, bench.half, most_s=MOST_S)


async def _paced_reads(bench: Bench, deployment: Deployment, events_per_s: float, seconds: float) -> Reads:
    """Reads spread over time, while events come at a rate and a worker merges them."""
    command = bench.reader(deployment, 0, 1, READS_PER_S)
    if not events_per_s:
        return await _read_for(bench, command, seconds)
    async with KafkaAdmin(bench.kept.bootstrap) as admin:
        handled = deployment.committed(admin, "features")
        with deployment.worker(bench.all_cores) as worker:
            publishing = asyncio.create_task(_publish_paced(bench, deployment, events_per_s))
            try:
                # Reads count once the worker follows.
                async with asyncio.timeout(MOST_S):
                    while await handled() <= bench.half:
                        worker.check()
                        await asyncio.sleep(STEP_S)
                return await _read_for(bench, command, seconds)
            finally:
                publishing.cancel()
                await asyncio.gather(publishing, return_exceptions=True)


async def _read_for(bench: Bench, command: list[str], seconds: float) -> Reads:
    with running("reader", command, cores=bench.all_cores, directory=bench.kept.directory) as process:
        await _ready(process)
        await asyncio.sleep(seconds)
        process.check()
    return _reads(process.text())


async def _ready(process: Process) -> None:
    """Wait until a reader has warmed up."""
    async with asyncio.timeout(MOST_S):
        while READY not in process.text():
            process.check()
            await asyncio.sleep(STEP_S)


async def _publish_paced(bench: Bench, deployment: Deployment, events_per_s: float) -> None:
    """Publish the payments that follow, at a rate, until cancelled."""
    async with kafka.producer(bench.kept.bootstrap) as producer:
        began, row = time.monotonic(), bench.half
        while True:
            due = bench.half + round((time.monotonic() - began) * events_per_s)
            await send(producer, deployment.topics.events, [bench.made.event(one) for one in range(row, due)])
            row = due
            await asyncio.sleep(STEP_S)


async def _cost_to_the_worker(bench: Bench, read_from: Deployment, top: Rate) -> list[Figure]:
    """The worker's top rate while somebody reads, and what its small scripts cost it."""
    again = Deployment(bench.kept, "bench-read-while")
    await again.create()
    await publish(bench.kept.bootstrap, again.topics.events, bench.made.events[: bench.half])
    command = bench.reader(read_from, 0, 1, LOADED_READS_PER_S)
    with running("loaded-reader", command, cores=bench.cores.rest, directory=bench.kept.directory) as reader:
        await _ready(reader)
        loaded = await _ingest(bench, again)
    large = Deployment(bench.kept, "bench-read-large")
    await large.create()
    await publish(bench.kept.bootstrap, large.topics.events, bench.made.events[: bench.half])
    largest = await _ingest(bench, large, chunk_events=LARGEST_CHUNK)
    what = f"worker, top rate with {LOADED_READS_PER_S:,.0f} reads/s beside it"
    return [
        figure(f"{what}, by CPU time", loaded.by_cpu, "events/s", control=("nobody reads", top.by_cpu)),
        figure(f"{what}, by wall", loaded.by_wall, "events/s", control=("nobody reads", top.by_wall)),
        figure(
            "worker, top rate with scripts that let readers in, by CPU time",
            top.by_cpu,
            "events/s",
            control=(f"scripts of {LARGEST_CHUNK} events", largest.by_cpu),
        ),
    ]


def _feast(bench: Bench, made: Records, scale: int) -> dict[str, dict[str, float]]:
    pairs = bench.kept.directory / "pairs.json"
    rows = range(max(0, bench.half - READ_EVENTS), bench.half)
    pairs.write_text(json.dumps([list(made.checked(row).texts) for row in rows]))
    address = bench.kept.redis_url.removeprefix("redis://").partition("/")[0]
    command = module(
        "loadtests.controls.feast_reading",
        *(address, pairs, bench.kept.directory / "feast", 2000 // scale, 200 // scale),
        python=control_python(),
    )
    said = finish(command, cores=bench.all_cores, directory=bench.kept.directory, timeout_s=2 * MOST_S)
    found: dict[str, dict[str, float]] = json.loads(said.strip().splitlines()[-1])
    return found


def _reads(said: str) -> Reads:
    found = json.loads(said.strip().splitlines()[-1])
    return Reads(found["p50_us"], found["p99_us"], found["cpu_us"])


if __name__ == "__main__":
    part("reading", reading)
