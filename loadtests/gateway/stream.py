"""`StreamPredict` at its top rate, beside a bare grpc.aio echo of the same messages and the same client.

`python -m loadtests.gateway.stream --quick`
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.v1.prediction_service_pb2 import PredictRequest, StreamPredictResponse
from loadtests.figures import Figure, figure
from loadtests.gateway.arguments import Options
from loadtests.gateway.calling import Server, echo
from loadtests.gateway.delimited import read_delimited, write_delimited
from loadtests.gateway.deployment import Deployment, complete
from loadtests.gateway.ghz import check
from loadtests.gateway.parts import Bench, part
from loadtests.gateway.requests import serialized
from loadtests.processes import ProcessFailed, finish, module

GOAL_S = 10_000.0
MOST_S = 120.0
ECHO = "bare bidirectional echo"


@dataclass(frozen=True)
class Sizes:
    """Streams, events of each under way, events of a first run, rounds, seconds of each."""

    shapes: Sequence[tuple[int, int]]
    pilot: int
    rounds: int
    seconds: float

    @classmethod
    def of(cls, options: Options) -> Sizes:
        """For these options."""
        return cls(((4, 128),), 500, 1, 2.0) if options.quick else cls(((1, 512), (4, 128), (8, 256)), 2000, 2, 5.0)


@dataclass
class Streams:
    """What was found of a server: events a second by shape, CPU time of server and client per event, its answers."""

    server: Server
    rates: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    cpu_us: list[float] = field(default_factory=list)
    client_cpu_us: list[float] = field(default_factory=list)
    answers: int = 0
    wrong: int = 0

    @property
    def top(self) -> float:
        """The best rate over all shapes."""
        return max(map(statistics.median, self.rates.values()))


async def stream(bench: Bench) -> list[Figure]:
    """Measure; see the module."""
    options, sizes = bench.options, Sizes.of(bench.options)
    deployed = await bench.deployed()
    async with deployed.serving("stream") as gateway:
        answer = await deployed.check(gateway)
        with echo(deployed, answer) as bare:
            ours, control = Streams(Server("gateway", gateway.address, gateway)), Streams(bare)
            measured = [control, ours] if options.controls else [ours]
            for shape in sizes.shapes:
                pilots = [_run(deployed, one, shape, sizes.pilot, checked=one is ours)["rate"] for one in measured]
                for _ in range(sizes.rounds):
                    for one, rate in zip(measured, pilots, strict=True):
                        said = _run(deployed, one, shape, round(rate * sizes.seconds), checked=one is ours)
                        one.rates.setdefault(shape, []).append(said["rate"])
                        one.cpu_us.append(said["server_cpu_us"])
                        one.client_cpu_us.append(said["client_cpu_us"])
    top = (ECHO, control.top) if options.controls else None
    cpu = (ECHO, statistics.median(control.cpu_us)) if options.controls else None
    client = (ECHO, statistics.median(control.client_cpu_us)) if options.controls else None
    name = "StreamPredict"
    figures = [
        figure(f"{name}: top rate", ours.top, "predictions/s", control=top, least=GOAL_S),
        figure(
            f"{name}: CPU of the server per event", statistics.median(ours.cpu_us), "µs", better="lower", control=cpu
        ),
        figure(
            f"{name}: CPU of the client per event",
            statistics.median(ours.client_cpu_us),
            "µs",
            better="lower",
            control=client,
        ),
    ]
    figures.append(complete(name, ours.wrong, ours.answers))
    for (streams, window), rates in ours.rates.items():
        if len(ours.rates) > 1:
            bare_rate = (ECHO, statistics.median(control.rates[streams, window])) if options.controls else None
            what = f"{name}: rate of {streams} streams with {window} events under way in each"
            figures.append(figure(what, statistics.median(rates), "predictions/s", control=bare_rate))
    return figures


def _run(deployed: Deployment, one: Streams, shape: tuple[int, int], events: int, *, checked: bool) -> dict[str, float]:
    """Send events over streams; also tells the server's CPU time per event.

    Raises:
        ProcessFailed: an answer is missing, or many are errors.
    """
    directory = deployed.servers.directory
    requests, answers = directory / "requests.bin", directory / "answers.bin"
    made = deployed.requests.packed(max(events, 2 * shape[0] * shape[1]))
    write_delimited(requests, serialized(made))
    before = one.server.cpu_s()
    command = module("loadtests.gateway.streamer", one.server.address, requests, *shape, answers)
    said: dict[str, float] = json.loads(finish(command, cores=deployed.cores, directory=directory, timeout_s=MOST_S))
    said["server_cpu_us"] = (one.server.cpu_s() - before) / len(made) * 1e6
    if checked:
        got = [StreamPredictResponse.FromString(content) for content in read_delimited(answers)]
        failed, degraded = _check(made, got)
        one.answers += len(got)
        one.wrong += failed + degraded
        said["rate"] *= 1 - failed / len(got)
    return said


def _check(made: Sequence[PredictRequest], answers: Sequence[StreamPredictResponse]) -> tuple[int, int]:
    """Each event has its answer; returns how many are errors, and how many something was missing for."""
    errors = [one.error for one in answers if one.HasField("error")]
    check("StreamPredict", len(errors), len(made), errors[:1])
    if {one.event.event_id for one in made} != {one.event_id for one in answers}:
        raise ProcessFailed(f"{len(made)} events were sent, and {len(answers)} answers are not theirs")
    return len(errors), sum(1 for one in answers if one.prediction.degradations)


if __name__ == "__main__":
    part("stream", stream)
