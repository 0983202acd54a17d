"""From label to traffic while `Predict` is called at half of its top rate: `make bench-swaps`.

The whole loop on servers of its own: the gateway answers, `outcomes` joins labels to events that it answered before,
the learner learns them and publishes a version a second, rollout takes each into traffic. Answers name their version,
so the client sees each swap. The control is the same load, at the same rate, without labels: before and after.

A label is in traffic with the first answer of a version that has learned it. The time counts from the moment at which
the label was sent, and from the moment at which its outcome lay in Kafka.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.learner.announcements import read_announced
from headrace.pipeline import DAY
from headrace.platform import kafka
from headrace.platform.topics import create_topics
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import Outcome
from headrace.v1.prediction_service_pb2 import PredictRequest, PredictResponse
from loadtests import bench
from loadtests.features.deployment import KEPT_DAYS, PARTITIONS, PIPELINE
from loadtests.features.engine import engine
from loadtests.figures import Figure, figure
from loadtests.gateway.arguments import Options
from loadtests.gateway.calling import PREDICT, call_by_own_client
from loadtests.gateway.cores import bench_cores
from loadtests.gateway.delimited import write_delimited
from loadtests.gateway.deployment import NAMESPACE, Deployment, Gateway, deployment
from loadtests.gateway.open_loop import Latencies, latencies
from loadtests.gateway.requests import serialized
from loadtests.learning.answering import METHOD, since_1970
from loadtests.learning.traffic_times import Joined, TrafficTimes, traffic_times
from loadtests.processes import Process, ProcessFailed, finish, module, running

SERVICES = ("outcomes", "learner", "rollout")
CLOSED_LOOP = 64
LABELS_S = 40.0
"""Labels a second."""
TICK_S = 0.05
MOST_P99 = 1.5
GOAL_P50_S, GOAL_P99_S = 2.0, 5.0
READY_S = 180.0
LAST_S = 8.0
"""Calls go on for so long after the last label, so that its version is seen."""


@dataclass(frozen=True)
class Sizes:
    """Payments in the state, calls to find the top rate, swaps, seconds of the load without labels."""

    events: int
    closed_calls: int
    swaps: int
    steady_s: float

    @classmethod
    def of(cls, *, quick: bool) -> Sizes:
        """For a run that gives figures, or a quick one."""
        return cls(5_000, 1_000, 8, 5.0) if quick else cls(50_000, 15_000, 110, 30.0)


@dataclass(frozen=True)
class Calls:
    """What callers saw in one phase.

    Attributes:
        found: latencies.
        ended_s: when each call had its answer, seconds since 1970; NaN where it had none.
        versions: number of the version that answered each.
        degraded: answers that something was missing for.
        failed: calls by status, of those that had no answer.
    """

    found: Latencies
    ended_s: NDArray[np.float64]
    versions: NDArray[np.float64]
    degraded: int
    failed: dict[str, int]


async def swaps(sizes: Sizes, interval_s: float) -> list[Figure]:
    """Measure; see the module."""
    options = Options(sizes.events, 1, controls=False, quick=False, profile=None, soak_s=0.0)
    cores = bench_cores()
    with deployment(options, cores) as deployed, ExitStack() as stack:
        await create_topics(deployed.servers.bootstrap, deployed.deployed, PARTITIONS, event_days=KEPT_DAYS)
        async with engine(deployed.servers.redis_url, deployed.plan, deployed.deployed) as one:
            await one.merge_outcomes([value for _, value in deployed.made.outcomes])
            for batch in one.batches(deployed.made.events):
                await one.handle(batch)
        # All announcements are read at the end: which version learned a label is not known of one that was removed.
        settings = {
            "HEADRACE_LEARNER_PUBLISH_INTERVAL_S": interval_s,
            "HEADRACE_LEARNER_KEEP_VERSIONS": 10 * sizes.swaps,
        }
        services = [stack.enter_context(_service(deployed, name, settings)) for name in SERVICES]
        gateway = stack.enter_context(deployed.gateway("gateway"))
        await gateway.ready()
        await _answers(deployed, gateway)
        requests = serialized(deployed.requests.packed(sizes.closed_calls))
        call_by_own_client(deployed, gateway.address, PREDICT, requests[: len(requests) // 10], CLOSED_LOOP)
        top, _ = call_by_own_client(deployed, gateway.address, PREDICT, requests[len(requests) // 10 :], CLOSED_LOOP)
        half = top.rate / 2
        before = await _call(deployed, gateway, half, sizes.steady_s)
        seconds = sizes.swaps * max(1.0, interval_s) * 1.1
        labelled = [PredictRequest.FromString(one).event for one in requests]
        sent: dict[str, float] = {}
        async with asyncio.TaskGroup() as tasks:
            calling = tasks.create_task(_call(deployed, gateway, half, seconds + LAST_S))
            tasks.create_task(_send_labels(deployed, labelled, seconds, sent))
        during = calling.result()
        after = await _call(deployed, gateway, half, sizes.steady_s)
        for process in (*services, gateway):
            process.check()
        outcomes = [found async for found in _outcomes(deployed)]
        versions = await read_announced(deployed.servers.bootstrap, deployed.topics)
    took = traffic_times(sent, outcomes, versions, during.ended_s, during.versions)
    return _figures(before, during, after, took, len(sent), sizes)


@contextmanager
def _service(deployed: Deployment, name: str, settings: dict[str, Any]) -> Iterator[Process]:
    directory = deployed.servers.directory
    environment = {
        "HEADRACE_PIPELINE": PIPELINE,
        "HEADRACE_NAMESPACE": NAMESPACE,
        "HEADRACE_KAFKA_BOOTSTRAP": deployed.servers.bootstrap,
        "HEADRACE_REDIS_URL": deployed.servers.redis_url,
        "HEADRACE_TRITON_URLS": deployed.servers.triton_url,
        "HEADRACE_ARTIFACTS": str(directory / "artifacts"),
        "HEADRACE_STATE_DIR": str(directory / "state"),
        "HEADRACE_SIGNING_PUBLIC_KEY": str(deployed.keys.public),
        "HEADRACE_LEARNER_SIGNING_KEY": str(deployed.keys.private),
        "HEADRACE_LOG_LEVEL": "warning",
        f"HEADRACE_{name.upper()}_OPS_PORT": "0",
        **{key: str(value) for key, value in settings.items()},
    }
    command = [sys.executable, "-m", "headrace.cli", "run", name]
    with running(name, command, cores=deployed.cores, directory=directory, environment=environment) as process:
        yield process


async def _answers(deployed: Deployment, gateway: Gateway) -> None:
    """Wait until the first version answers with everything behind it."""
    import grpc.aio  # after the loop is there

    deadline = time.monotonic() + READY_S
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        call: Any = channel.unary_unary(METHOD)
        while True:
            (request,) = serialized(deployed.requests.packed(1))
            answer = PredictResponse.FromString(await call(request, timeout=READY_S))
            if answer.model_version and not answer.degradations:
                return
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{gateway.name} does not answer from a version: {answer}\n{gateway.text()}")
            await asyncio.sleep(0.1)


async def _call(deployed: Deployment, gateway: Gateway, rate: float, seconds: float) -> Calls:
    """Offer a load for so long."""
    directory = deployed.servers.directory
    file, times = directory / "swaps.bin", directory / "swaps.npy"
    write_delimited(file, serialized(deployed.requests.packed(round(rate * seconds))))
    command = module("loadtests.learning.answering", gateway.address, file, rate, times)
    said = json.loads(
        await asyncio.to_thread(finish, command, cores=deployed.cores, directory=directory, timeout_s=seconds + 60)
    )
    due, ended, versions, degraded = np.load(times)
    return Calls(latencies(due, ended), ended, versions, int(degraded.sum()), said["failed"])


async def _send_labels(deployed: Deployment, events: list[Any], seconds: float, sent: dict[str, float]) -> None:
    """Label events that were answered, a few at a time; notes when each label was sent."""
    random, offset = np.random.default_rng(7), since_1970()
    began, waiting = time.monotonic(), iter(events)
    async with kafka.producer(deployed.servers.bootstrap, linger_ms=0) as producer:
        for tick in itertools.count(1):
            if tick * TICK_S > seconds:
                return
            await asyncio.sleep(max(0.0, began + tick * TICK_S - time.monotonic()))
            acknowledged: list[Awaitable[Any]] = []
            for event in itertools.islice(waiting, max(1, round(LABELS_S * TICK_S))):
                label = Label(
                    event_id=event.event_id,
                    value=float(random.random() < 0.1),
                    label_time_us=event.event_time_us + 7 * DAY,
                )
                sent[event.event_id] = time.perf_counter() + offset
                acknowledged.append(
                    await producer.send(deployed.topics.labels, label.SerializeToString(), key=event.event_id.encode())
                )
            await asyncio.gather(*acknowledged)


async def _outcomes(deployed: Deployment) -> AsyncIterator[Joined]:
    """All outcomes."""
    topic = deployed.topics.outcomes
    ends = {
        kafka.TopicPartition(topic, partition): end
        for partition, end in (await kafka.end_offsets(deployed.servers.bootstrap, topic)).items()
    }
    async with asyncio.timeout(60), kafka.consumer(deployed.servers.bootstrap, partitions=ends) as reader:
        while any([await reader.position(at) < end for at, end in ends.items()]):
            for at, records in (await reader.getmany(timeout_ms=200)).items():
                for record in records:
                    event_id = Outcome.FromString(record.value).prediction.event_id
                    yield Joined(event_id, at.partition, record.offset, record.timestamp / 1e3)


def _figures(before: Calls, during: Calls, after: Calls, took: TrafficTimes, labels: int, sizes: Sizes) -> list[Figure]:
    if not len(took.from_label):
        raise ProcessFailed("no label came into traffic")
    steady_p50 = float(np.median([before.found.p50_ms, after.found.p50_ms]))
    steady_p99 = float(np.median([before.found.p99_ms, after.found.p99_ms]))
    calls = len(during.ended_s)
    wrong = sum(during.failed.values())
    control = ("without labels, before and after", steady_p99)
    return [
        figure("swaps under load", took.swaps, "versions", least=min(100, sizes.swaps)),
        figure("load offered", during.found.offered, "calls/s"),
        figure("labels in traffic, of those sent", len(took.from_label) / labels, "", least=1.0),
        figure("label → traffic: p50", _at(took.from_label, 50), "s", better="lower", most=GOAL_P50_S),
        figure("label → traffic: p99", _at(took.from_label, 99), "s", better="lower", most=GOAL_P99_S),
        figure("outcome → traffic: p50", _at(took.from_outcome, 50), "s", better="lower"),
        figure("outcome → traffic: p99", _at(took.from_outcome, 99), "s", better="lower"),
        figure("Predict in swaps: share failed", wrong / calls, "", better="lower", most=0.0),
        figure("Predict in swaps: share degraded", during.degraded / calls, "", better="lower", most=0.0),
        figure(
            "Predict in swaps: p50",
            during.found.p50_ms,
            "ms",
            better="lower",
            control=("without labels, before and after", steady_p50),
        ),
        figure(
            "Predict in swaps: p99",
            during.found.p99_ms,
            "ms",
            better="lower",
            control=control,
            least_ratio=round(1 / MOST_P99, 2),
        ),
    ]


def _at(values: NDArray[np.float64], percentile: float) -> float:
    return float(np.percentile(values, percentile))


def main() -> int:
    """Measure, print, and write `.run/bench/swaps.json`."""
    parser = argparse.ArgumentParser(description="From label to traffic, while Predict is called at half load.")
    parser.add_argument("--quick", action="store_true", help="a few swaps: a check that it works, not figures")
    parser.add_argument("--interval-s", type=float, default=1.0, help="fewest seconds between two versions (1)")
    arguments = parser.parse_args()
    sizes = Sizes.of(quick=arguments.quick)

    async def measure() -> list[Figure]:
        return await swaps(sizes, arguments.interval_s)

    return bench.run("swaps", {"swaps": measure}, packages=("grpcio", "aiokafka", "river"), controls=False)


if __name__ == "__main__":
    raise SystemExit(main())
