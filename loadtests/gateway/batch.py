"""`PredictBatch` of 100 and of 1,000 rows at its top rate, beside a bare Triton client that sends the same batches.

`python -m loadtests.gateway.batch --quick`
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.v1.prediction_service_pb2 import PredictBatchRequest, PredictBatchResponse
from loadtests.figures import Figure, figure
from loadtests.gateway.arguments import Options
from loadtests.gateway.calling import Server, call_by_own_client
from loadtests.gateway.delimited import read_delimited
from loadtests.gateway.deployment import Deployment, complete
from loadtests.gateway.ghz import Run
from loadtests.gateway.parts import Bench, part
from loadtests.gateway.requests import serialized
from loadtests.processes import ProcessFailed, finish, module

METHOD = "headrace.v1.PredictionService.PredictBatch"
GOAL_ROWS_S = {100: 100_000.0}
MOST_S = 120.0
CONTROL = "bare Triton client, same batches"


@dataclass(frozen=True)
class Sizes:
    """Calls under way at once by the rows of a call, rows of a first run, rounds, seconds of each.

    More calls than wait a tenth of a second for their turn would be refused.
    """

    concurrency: Mapping[int, Sequence[int]]
    pilot_rows: int
    rounds: int
    seconds: float

    @classmethod
    def of(cls, options: Options) -> Sizes:
        """For these options."""
        if options.quick:
            return cls({100: (8,), 1000: (2,)}, 4000, 1, 1.0)
        return cls({100: (4, 16), 1000: (2, 4)}, 20_000, 2, 3.0)


async def batch(bench: Bench) -> list[Figure]:
    """Measure; see the module."""
    options, sizes = bench.options, Sizes.of(bench.options)
    deployed = await bench.deployed()
    figures: list[Figure] = []
    async with deployed.serving("batch") as gateway:
        await deployed.check(gateway)
        server = Server("gateway", gateway.address, gateway)
        for rows, numbers in sizes.concurrency.items():
            best = max(
                (_at(deployed, server, rows, concurrency, sizes, options) for concurrency in numbers),
                key=lambda found: found.rate,
            )
            control = (CONTROL, best.control_rate) if best.control_rate else None
            name = f"PredictBatch of {rows:,} rows"
            figures += [
                figure(f"{name}: top rate", best.rate, "rows/s", control=control, least=GOAL_ROWS_S.get(rows)),
                figure(f"{name}: CPU of the server per row", best.cpu_us, "µs", better="lower"),
                complete(name, best.wrong, 1),
            ]
    return figures


@dataclass(frozen=True)
class _Run:
    """Rows a second, CPU time per row in microseconds, calls, and how many of these failed or were degraded."""

    rate: float
    cpu_us: float
    calls: int
    wrong: int


@dataclass(frozen=True)
class _Found:
    rate: float
    cpu_us: float
    wrong: float
    control_rate: float | None


def _at(deployed: Deployment, server: Server, rows: int, concurrency: int, sizes: Sizes, options: Options) -> _Found:
    """Ours and the control in turns, with so many calls under way."""
    pilot = _ours(deployed, server, rows, concurrency, sizes.pilot_rows).rate
    bare_pilot = _control(deployed, rows, concurrency, sizes.pilot_rows) if options.controls else 0.0
    runs, bare = [], []
    for _ in range(sizes.rounds):
        if options.controls:
            bare.append(_control(deployed, rows, concurrency, round(bare_pilot * sizes.seconds)))
        runs.append(_ours(deployed, server, rows, concurrency, round(pilot * sizes.seconds)))
    return _Found(
        statistics.median(one.rate for one in runs),
        statistics.median(one.cpu_us for one in runs),
        sum(one.wrong for one in runs) / sum(one.calls for one in runs),
        statistics.median(bare) if bare else None,
    )


def _ours(deployed: Deployment, server: Server, rows: int, concurrency: int, total: int) -> _Run:
    """Our rate.

    Raises:
        ProcessFailed: nearly all calls have failed, or a row has another one's answer.
    """
    answers = deployed.servers.directory / "answers.bin"
    made = deployed.requests.batches(max(2 * concurrency, total // rows), rows)
    before = server.cpu_s()
    run, _ = call_by_own_client(deployed, server.address, METHOD, serialized(made), concurrency, answers=answers)
    cpu = (server.cpu_s() - before) / (rows * len(made)) * 1e6
    degraded = _check(made, [PredictBatchResponse.FromString(content) for content in read_delimited(answers)], run)
    return _Run(run.rate * rows, cpu, len(made), degraded + run.failed)


def _check(made: Sequence[PredictBatchRequest], answers: Sequence[PredictBatchResponse], run: Run) -> int:
    """Each row has its answer; returns how many calls something was missing for."""
    sent = {event_id for one in made for event_id in one.event_ids}
    got = {event_id for one in answers for event_id in one.event_ids}
    if got - sent or len(answers) + run.failed != len(made) or (sent != got and not run.failed):
        raise ProcessFailed(f"{len(sent)} rows were sent, and {len(got)} answers are not theirs")
    return sum(1 for one in answers if one.degradations)


def _control(deployed: Deployment, rows: int, concurrency: int, total: int) -> float:
    """Rows a second of a bare Triton client."""
    calls = max(2 * concurrency, total // rows)
    arguments = (deployed.servers.triton_url, deployed.triton_model, deployed.width, rows, concurrency, calls)
    command = module("loadtests.controls.triton_batches", *arguments)
    said = finish(command, cores=deployed.cores, directory=deployed.servers.directory, timeout_s=MOST_S)
    return float(json.loads(said)["rate"])


if __name__ == "__main__":
    part("batch", batch)
