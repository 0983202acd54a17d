"""Events to vectors through Kafka: one worker on one core, and the same job done with other programs.

`python -m loadtests.features.stream --events 200000`
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence

from headrace.platform.kafka import KafkaAdmin
from loadtests.environment import control_python
from loadtests.features.arguments import Options, part
from loadtests.features.deployment import Deployment, appended, create_plain_topics
from loadtests.features.payments import Records, payments, publish
from loadtests.figures import Figure, figure
from loadtests.machine import Cores, share_cores
from loadtests.processes import Rate, finish, measure, module, running
from loadtests.servers import Servers, servers

MOST_S = 60.0
FAUST_S = 25.0
FAUST_QUICK_S = 12.0
FAUST_EVENTS = 60_000
GOAL_EVENTS_S = 40_000.0
CONTROL_RECORDS_S = 500_000.0


async def stream(options: Options) -> list[Figure]:
    """Measure; see the module."""
    cores = share_cores()
    with servers(cores.rest) as kept:
        deployment = Deployment(kept, "bench")
        made = Records(deployment.plan.pipeline, payments(options.events, options.source))
        await deployment.create()
        outcomes = await merge_outcomes(deployment, made, cores)
        await publish(kept.bootstrap, deployment.topics.events, made.events)
        ours = await one_worker(deployment, len(made), cores)
        reading = read_only(deployment, len(made), cores)
        figures = [
            *_worker_figures(ours, reading),
            figure("outcomes merged by one worker, by its CPU time", outcomes.by_cpu, "outcomes/s"),
        ]
        figures += await _two_workers(kept, made, cores, ours)
        if options.controls:
            faust_s = FAUST_QUICK_S if options.quick else FAUST_S
            for name, rate in (await _controls(kept, deployment, made, cores, faust_s)).items():
                least = 10.0 if "Faust" in name else 1.0
                for how, value, control in (
                    ("CPU time", ours.by_cpu, rate.by_cpu),
                    ("wall", ours.by_wall, rate.by_wall),
                ):
                    figures.append(
                        figure(
                            f"events to vectors, one worker, by {how}",
                            value,
                            "events/s",
                            control=(name, control),
                            least_ratio=least,
                        )
                    )
        return figures


def _worker_figures(ours: Rate, reading: Rate) -> list[Figure]:
    control = "aiokafka getmany alone"
    # The goal is for a machine of a certain speed; a slower or a busy one is not judged by it.
    by_cpu, by_wall = (GOAL_EVENTS_S if one >= CONTROL_RECORDS_S else None for one in (reading.by_cpu, reading.by_wall))
    return [
        figure(
            "events to vectors, one worker, by CPU time",
            ours.by_cpu,
            "events/s",
            control=(control, reading.by_cpu),
            least=by_cpu,
        ),
        figure(
            "events to vectors, one worker, by wall",
            ours.by_wall,
            "events/s",
            control=(control, reading.by_wall),
            least=by_wall,
        ),
    ]


async def merge_outcomes(deployment: Deployment, made: Records, cores: Cores) -> Rate:
    """Have a worker merge the labels first, so that label-derived features are real."""
    bootstrap = deployment.servers.bootstrap
    await publish(bootstrap, deployment.topics.outcomes, made.outcomes)
    async with KafkaAdmin(bootstrap) as admin:
        with deployment.worker(cores.measured) as worker:
            handled = deployment.committed(admin, "features-outcomes")
            return await measure([worker], handled, len(made), most_s=MOST_S)


async def one_worker(deployment: Deployment, total: int, cores: Cores) -> Rate:
    """One worker over all of `events`; what counts is what it has committed."""
    async with KafkaAdmin(deployment.servers.bootstrap) as admin:
        with deployment.worker(cores.measured) as worker:
            return await measure([worker], deployment.committed(admin, "features"), total, most_s=MOST_S)


def read_only(deployment: Deployment, total: int, cores: Cores) -> Rate:
    """The control: reading the same records and doing nothing with them."""
    topic = deployment.topics.events
    command = module("loadtests.controls.getmany", deployment.servers.bootstrap, topic, total, 500)
    said = finish(command, cores=cores.measured, directory=deployment.servers.directory, timeout_s=MOST_S)
    found = json.loads(said)
    return Rate(found["records"], found["wall_s"], found["cpu_s"])


async def _two_workers(kept: Servers, made: Records, cores: Cores, one: Rate) -> list[Figure]:
    deployment = Deployment(kept, "bench-two")
    await deployment.create()
    await merge_outcomes(deployment, made, cores)
    async with KafkaAdmin(kept.bootstrap) as admin:
        with deployment.worker(cores.measured, 1) as first, deployment.worker(cores.second, 2) as other:
            # Else the first would have done most of it before the second had started.
            await first.ready()
            await other.ready()
            publishing = asyncio.create_task(publish(kept.bootstrap, deployment.topics.events, made.events))
            handled = deployment.committed(admin, "features")
            try:
                rate = await measure([first, other], handled, len(made), most_s=MOST_S)
            finally:
                publishing.cancel()
                await asyncio.gather(publishing, return_exceptions=True)
    # By CPU time it is what two workers would do on two cores of their own.
    figures = [
        figure(
            "two workers, by CPU time of both",
            2 * rate.by_cpu,
            "events/s",
            control=("one worker", one.by_cpu),
            least_ratio=1.7,
        )
    ]
    shares = "" if cores.scale else " (the second shares its core with the broker and Redis)"
    figures.append(
        figure(
            f"two workers, by wall{shares}",
            rate.by_wall,
            "events/s",
            control=("one worker", one.by_wall),
            least_ratio=1.7 if cores.scale else None,
        )
    )
    return figures


async def _controls(
    kept: Servers, deployment: Deployment, made: Records, cores: Cores, faust_s: float
) -> dict[str, Rate]:
    source, bootstrap = deployment.topics.events, kept.bootstrap
    count = min(FAUST_EVENTS, len(made))
    await create_plain_topics(
        bootstrap, ["faust-events", "faust-vectors", "quix-vectors", "bytewax-vectors", "bytewax-kept-vectors"]
    )
    await publish(bootstrap, "faust-events", made.events[:count], (made.times_us[:count] // 1000).tolist())
    python = control_python()
    jobs: Sequence[tuple[str, str, list[str], Mapping[str, str], int, float]] = [
        (
            "Faust hopping tables",
            "faust-vectors",
            module("loadtests.controls.faust_tables", "worker", "-l", "warn", "--without-web"),
            {
                "BOOTSTRAP": bootstrap,
                "INPUT": "faust-events",
                "OUTPUT": "faust-vectors",
                "GROUP": "bench-faust",
                "DIRECTORY": str(kept.directory / "faust"),
            },
            count,
            faust_s,
        ),
        (
            "Quix Streams state",
            "quix-vectors",
            module(
                "loadtests.controls.quix_streams",
                *(bootstrap, source, "quix-vectors", "bench-quix", kept.directory / "quix"),
                python=python,
            ),
            {},
            len(made),
            MOST_S,
        ),
        (
            "Bytewax stateful_map",
            "bytewax-vectors",
            module("loadtests.controls.bytewax_flow", bootstrap, source, "bytewax-vectors", python=python),
            {},
            len(made),
            MOST_S,
        ),
        (
            "Bytewax with recovery",
            "bytewax-kept-vectors",
            module(
                "loadtests.controls.bytewax_flow",
                *(bootstrap, source, "bytewax-kept-vectors", kept.directory / "bytewax"),
                python=python,
            ),
            {},
            len(made),
            MOST_S,
        ),
    ]
    rates = {}
    for name, output, command, environment, total, most_s in jobs:
        async with KafkaAdmin(bootstrap) as admin:
            with running(
                output.removesuffix("-vectors"),
                command,
                cores=cores.measured,
                directory=kept.directory,
                environment=environment,
            ) as process:
                rates[name] = await measure([process], appended(admin, output), total, most_s=most_s)
    return rates


if __name__ == "__main__":
    part("stream", stream)
