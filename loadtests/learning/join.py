"""The join of predictions and labels beside bare consuming and producing, and what its store costs: `make bench-join`.

**Rate.** `headrace run outcomes`, all four partitions in one process, over predictions of a fraud pipeline's size and
their labels, which come a hundred thousand events later, so that each label finds its prediction in the store and not
in the batch. Records are predictions and labels. The control reads the same topics in the same batches, and writes a
record of an outcome's size for each label, in transactions.

**Store.** Pending predictions of one partition, put in as the join does, without Kafka: bytes on disk for each, and
what a prediction, a label and an expiry cost when that many are pending.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from headrace.outcomes.event_state import Answered, UsedLabel, stored_as
from headrace.outcomes.expiry import expire
from headrace.outcomes.join import BatchJoin, JoinRules, LabelArrival, PredictionArrival, event_ids
from headrace.outcomes.join_store import JoinStore, open_store
from headrace.outcomes.progress import Positions, Progress
from headrace.outcomes.settings import OutcomesSettings
from headrace.pipeline import DAY
from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin
from headrace.platform.pipelines import load_pipeline
from headrace.platform.topics import Topics, create_topics, deployed_name
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import CHANNEL_KAFKA, ROLE_ANSWER, ROUTE_CHAMPION, Outcome, Prediction
from loadtests import bench
from loadtests.features.deployment import KEPT_DAYS, PARTITIONS, PIPELINE, create_plain_topics
from loadtests.figures import Figure, figure
from loadtests.machine import share_cores
from loadtests.processes import Process, ProcessFailed, Rate, measure, module, running
from loadtests.servers import BENCH, Servers, servers

GOAL = 30_000.0
EVENTS, AHEAD = 200_000, 100_000
QUICK_EVENTS, QUICK_AHEAD = 20_000, 10_000
PENDING, QUICK_PENDING = 1_000_000, 50_000
SAMPLE = 50_000
BATCH = OutcomesSettings.model_fields["batch_records"].default
MOST_S = 300.0
BEGIN_US = 1_700_000_000_000_000
STEP_US = 1_000
LABEL_DELAY_US = 7 * DAY
HORIZON_US = 30 * DAY
CONTROL = "bare consume + produce"


def prediction(number: int, rows: Sequence[Sequence[float]]) -> Prediction:
    """A prediction as the Kafka scorer of the fraud pipeline writes it."""
    return Prediction(
        prediction_id=f"k-{number % PARTITIONS}-{number}",
        event_id=f"{number:016x}",
        event_time_us=BEGIN_US + number * STEP_US,
        role=ROLE_ANSWER,
        score=0.0625,
        decision="accept",
        model_version="000123",
        route=ROUTE_CHAMPION,
        route_epoch=7,
        features_fingerprint=1 << 63,
        features=rows[number % len(rows)],
        entities=[f"{number % 5000}", f"{number % 10_000}"],
        event_positions=[number] * PARTITIONS,
        outcome_positions=[number] * PARTITIONS,
        features_time_us=BEGIN_US,
        model_time_us=BEGIN_US,
        answered_time_us=BEGIN_US,
        channel=CHANNEL_KAFKA,
        ingested=True,
        received_time_us=BEGIN_US,
    )


def label(number: int) -> Label:
    """Its label; one in fifty is positive."""
    time_us = BEGIN_US + number * STEP_US + LABEL_DELAY_US
    return Label(event_id=f"{number:016x}", value=float(number % 50 == 0), label_time_us=time_us)


def feature_rows() -> list[list[float]]:
    """A thousand rows of features, as many as the fraud pipeline has."""
    width = len(load_pipeline(PIPELINE).feature_names)
    rows: list[list[float]] = np.random.default_rng(1).gamma(2.0, 10.0, (1000, width)).tolist()
    return rows


async def rate(*, quick: bool) -> list[Figure]:
    """The service over a real broker, and the control over the same topics."""
    events, ahead = (QUICK_EVENTS, QUICK_AHEAD) if quick else (EVENTS, AHEAD)
    cores = share_cores()
    with servers(cores.rest) as around:
        topics = Topics(deployed_name(load_pipeline(PIPELINE).name, "join"))
        await create_topics(around.bootstrap, topics.deployed, PARTITIONS, event_days=KEPT_DAYS, outcome_days=KEPT_DAYS)
        rows = feature_rows()
        async with KafkaAdmin(around.bootstrap) as admin, kafka.producer(around.bootstrap) as producer:

            async def publish(topic: str, messages: Iterator[Prediction | Label]) -> None:
                sent = [
                    await producer.send(topic, one.SerializeToString(), key=one.event_id.encode()) for one in messages
                ]
                await asyncio.gather(*sent)

            await publish(topics.predictions, (prediction(number, rows) for number in range(ahead)))
            with _service(around, cores.measured) as process:
                await _until(admin, topics, process, ahead)
            await publish(topics.predictions, (prediction(number, rows) for number in range(ahead, ahead + events)))
            await publish(topics.labels, (label(number) for number in range(events)))
            total = ahead + 2 * events
            with _service(around, cores.measured) as process:
                ours = await measure(
                    [process], partial(_committed, admin, topics.group("outcomes")), total, most_s=MOST_S
                )
                await _until(admin, topics, process, total)
            size = await _check(around, topics, events)
            control = await _control(around, admin, topics, cores.measured, total, size)
    return [
        figure(
            "join: rate by CPU time",
            ours.by_cpu,
            "records/s/core",
            control=(CONTROL, control.by_cpu),
            least=GOAL,
        ),
        figure("join: rate by wall", ours.by_wall, "records/s", control=(CONTROL, control.by_wall)),
        figure("join: an outcome", size, "bytes", better="lower"),
    ]


def _service(around: Servers, cores: frozenset[int]) -> AbstractContextManager[Process]:
    environment = {
        "HEADRACE_PIPELINE": PIPELINE,
        "HEADRACE_NAMESPACE": "join",
        "HEADRACE_KAFKA_BOOTSTRAP": around.bootstrap,
        "HEADRACE_STATE_DIR": str(around.directory / "state"),
        "HEADRACE_OUTCOMES_OPS_PORT": "0",
    }
    command = module("headrace.cli.__main__", "run", "outcomes")
    return running("outcomes", command, cores=cores, directory=around.directory, environment=environment)


async def _committed(admin: KafkaAdmin, group: str) -> int:
    return sum(offset for offset, _ in (await admin.committed(group)).values())


async def _until(admin: KafkaAdmin, topics: Topics, process: Process, count: int) -> None:
    async with asyncio.timeout(MOST_S):
        while await _committed(admin, topics.group("outcomes")) < count:
            process.check()
            await asyncio.sleep(0.2)


async def _control(
    around: Servers, admin: KafkaAdmin, topics: Topics, cores: frozenset[int], total: int, size: int
) -> Rate:
    target, group = "bench-copied", "bench-copier"
    await create_plain_topics(around.bootstrap, [target])
    arguments = (around.bootstrap, topics.predictions, topics.labels, target, group, BATCH, size)
    command = module("loadtests.controls.copy_labels", *arguments)
    with running("copier", command, cores=cores, directory=around.directory) as process:
        return await measure([process], partial(_committed, admin, group), total, most_s=MOST_S)


async def _check(around: Servers, topics: Topics, events: int) -> int:
    """Each label has one outcome; the size of one, in bytes.

    Raises:
        ProcessFailed: one is missing, or there twice.
    """
    found, size = Counter[str](), 0
    ends = await kafka.end_offsets(around.bootstrap, topics.outcomes)
    places = [kafka.TopicPartition(topics.outcomes, number) for number, end in ends.items() if end]
    async with kafka.consumer(around.bootstrap, partitions=places) as reader, asyncio.timeout(MOST_S):
        while [True for place in places if await reader.position(place) < ends[place.partition]]:
            for records in (await reader.getmany(timeout_ms=200)).values():
                for record in records:
                    outcome = Outcome.FromString(record.value)
                    found[outcome.label.event_id] += outcome.prediction.event_id == outcome.label.event_id
                    size = len(record.value)
    if len(found) != events or set(found.values()) != {1}:
        raise ProcessFailed(f"{len(found)} of {events} labels have outcomes, {sum(found.values())} in all")
    return size


async def pending(*, count: int) -> list[Figure]:
    """The store with that many pending predictions in one partition."""
    name = f"{count:,} pending"
    rows = feature_rows()
    rules = JoinRules(0, "fraud.predictions", "fraud.labels", HORIZON_US, DAY, DAY, "drop")
    BENCH.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=BENCH) as scratch:
        directory = Path(scratch) / "store"
        store = open_store(directory, "bench")
        store.write({}, {}, Progress(Positions(0, 0)))
        put_s, payload = 0.0, 0
        for start in range(0, count, BATCH):
            arrivals = [_arrival(number, rows) for number in range(start, min(start + BATCH, count))]
            payload += sum(len(one.value) for one in arrivals)
            began = time.process_time()
            _join(store, rules, arrivals, [])
            put_s += time.process_time() - began
        # Closed and opened again, it has written everything where it stays.
        store.close()
        began = time.monotonic()
        store = open_store(directory, "bench")
        opened_s = time.monotonic() - began
        size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
        sample = min(SAMPLE, count // 4)
        numbers = random.Random(1).sample(range(count // 2, count), sample)
        label_s = 0.0
        for start in range(0, sample, BATCH):
            labels = [
                LabelArrival(f"{number:016x}".encode(), UsedLabel(1.0, BEGIN_US + LABEL_DELAY_US, start + place))
                for place, number in enumerate(numbers[start : start + BATCH])
            ]
            began = time.process_time()
            _join(store, rules, [], labels)
            label_s += time.process_time() - began
        expire_s = _expire(store, rules, sample)
        store.close()
    return [
        figure(f"store, {name}: on disk", size / count, "bytes/prediction", better="lower"),
        figure(f"store, {name}: the prediction itself", payload / count, "bytes/prediction", better="lower"),
        figure(f"store, {name}: a prediction is put in", put_s / count * 1e6, "µs of CPU", better="lower"),
        figure(f"store, {name}: a label finds its prediction", label_s / sample * 1e6, "µs of CPU", better="lower"),
        figure(f"store, {name}: a prediction expires", expire_s / sample * 1e6, "µs of CPU", better="lower"),
        figure(f"store, {name}: opened after a stop", opened_s, "s", better="lower"),
    ]


def _arrival(number: int, rows: Sequence[Sequence[float]]) -> PredictionArrival:
    one = prediction(number, rows)
    return PredictionArrival(
        one.event_id.encode(),
        number,
        one.event_time_us,
        one.role,
        one.prediction_id,
        one.model_version,
        one.score,
        one.SerializeToString(),
    )


def _join(
    store: JoinStore, rules: JoinRules, predictions: Sequence[PredictionArrival], labels: Sequence[LabelArrival]
) -> None:
    """As the join of a partition does, without Kafka."""
    progress = store.progress
    assert progress is not None
    states = store.read(event_ids(predictions, labels))
    before = stored_as(states)
    batch = BatchJoin(rules, states, progress.clock, Positions(0, 0), progress.expired_until_us)
    batch.add(predictions, labels)
    store.write(states, before, replace(progress, clock=batch.clock))


def _expire(store: JoinStore, rules: JoinRules, count: int) -> float:
    """Expire the oldest; seconds of CPU."""
    began, done = time.process_time(), 0
    while done < count:
        ids, reached = store.due(sys.maxsize, OutcomesSettings.model_fields["expiry_records"].default)
        states = store.read(ids)
        assert any(isinstance(state, Answered) for state in states.values())
        before = stored_as(states)
        expired = expire(rules, states, reached)
        assert store.progress is not None
        store.write(expired.states, before, replace(store.progress, expired_until_us=reached))
        done += len(ids)
    return (time.process_time() - began) * count / done


def main() -> int:
    """Measure, print, and write `.run/bench/join.json`."""
    parser = argparse.ArgumentParser(description="The join, beside bare consuming and producing, and its store.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the records: a check that it works")
    parser.add_argument("--pending", type=int, default=0, help=f"pending predictions in the store ({PENDING:,})")
    parser.add_argument("--only", choices=["rate", "store"], help="one part")
    options = parser.parse_args()
    count = options.pending or (QUICK_PENDING if options.quick else PENDING)
    parts: dict[str, bench.Part] = {
        "rate": partial(rate, quick=options.quick),
        "store": partial(pending, count=count),
    }
    chosen = {name: part for name, part in parts.items() if options.only in (None, name)}
    area = f"join-{options.only}" if options.only else "join"
    return bench.run(area, chosen, packages=("aiokafka", "rocksdict", "protobuf"), controls=False)


if __name__ == "__main__":
    raise SystemExit(main())
