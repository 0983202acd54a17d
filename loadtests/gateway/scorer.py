"""The Kafka scorer, `vectors` to `predictions`, over a backlog: beside bare consuming and producing in transactions.

`python -m loadtests.gateway.scorer --quick`
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.gateway.settings import GatewaySettings
from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin, TopicPartition
from headrace.v1.event_pb2 import SourcePosition
from headrace.v1.prediction_pb2 import CHANNEL_KAFKA, Prediction
from headrace.v1.vector_pb2 import FeatureVector
from loadtests.features.deployment import PARTITIONS, create_plain_topics
from loadtests.figures import Figure, figure
from loadtests.gateway.deployment import VERSION, Deployment
from loadtests.gateway.parts import Bench, part
from loadtests.processes import ProcessFailed, Rate, measure, module, running

GOAL_S = 30_000.0
VECTORS = 200_000
QUICK_VECTORS = 20_000
MOST_S = 60.0
CONTROL = "bare consume + produce"


async def scorer(bench: Bench) -> list[Figure]:
    """Measure; see the module."""
    deployed, options = await bench.deployed(), bench.options
    event_ids = await publish_vectors(deployed, QUICK_VECTORS if options.quick else VECTORS)
    topics = deployed.topics
    async with KafkaAdmin(deployed.servers.bootstrap) as admin:
        published = sum((await admin.end_offsets([topics.vectors])).values())
        begin = await admin.end_offsets([topics.predictions])
        with deployed.gateway("scorer") as gateway:
            ours = await measure([gateway], Committed(admin, topics.group("gateway")), published, most_s=MOST_S)
        size = await _check(deployed, event_ids, begin)
        control: Rate | None = None
        if options.controls:
            target, group = "bench-copied", "bench-copier"
            await create_plain_topics(deployed.servers.bootstrap, [target])
            batch = GatewaySettings().score_batch_records
            arguments = (deployed.servers.bootstrap, topics.vectors, target, group, batch, size)
            command = module("loadtests.controls.consume_produce", *arguments)
            directory = deployed.servers.directory
            with running("copier", command, cores=deployed.cores, directory=directory) as process:
                control = await measure([process], Committed(admin, group), published, most_s=MOST_S)
    by_wall = (CONTROL, control.by_wall) if control else None
    by_cpu = (CONTROL, control.by_cpu) if control else None
    return [
        figure("Kafka scorer: rate", ours.by_wall, "predictions/s", control=by_wall, least=GOAL_S),
        figure("Kafka scorer: rate by its CPU time", ours.by_cpu, "predictions/s", control=by_cpu),
    ]


@dataclass(frozen=True)
class Committed:
    """Asks how many records a group has committed."""

    admin: KafkaAdmin
    group: str

    async def __call__(self) -> int:
        """The sum over its partitions."""
        return sum(offset for offset, _ in (await self.admin.committed(self.group)).values())


async def publish_vectors(deployed: Deployment, count: int) -> list[str]:
    """Publish vectors as the stream processor does, over all partitions; returns the ids of their events."""
    events, topics = deployed.requests.events(count), deployed.topics
    values = np.random.default_rng(1).gamma(2.0, 10.0, (count, deployed.width)).tolist()
    async with KafkaAdmin(deployed.servers.bootstrap) as admin:
        # The places in `events` go on where the last vectors ended: lower ones are dropped as seen before.
        offsets = {place.partition: end for place, end in (await admin.end_offsets([topics.vectors])).items()}
    now = time.time_ns() // 1000
    async with kafka.producer(deployed.servers.bootstrap) as producer:
        sent = []
        for number, (event, row) in enumerate(zip(events, values, strict=True)):
            partition = number % PARTITIONS
            vector = FeatureVector(
                event_id=event.event_id,
                event_time_us=event.time_us,
                features_fingerprint=deployed.plan.pipeline.features_fingerprint,
                values=row,
                entities=event.texts,
                source=SourcePosition(topic=topics.events, partition=partition, offset=offsets[partition]),
                event_positions=[offsets.get(one, -1) for one in range(PARTITIONS)],
                outcome_positions=[-1] * PARTITIONS,
                features_time_us=now,
                produced_time_us=now,
            )
            offsets[partition] += 1
            key = event.texts[0].encode()
            sent.append(await producer.send(topics.vectors, vector.SerializeToString(), key=key, partition=partition))
        await asyncio.gather(*sent)
    return [one.event_id for one in events]


async def _check(deployed: Deployment, event_ids: Sequence[str], begin: Mapping[TopicPartition, int]) -> int:
    """Each event has one prediction from `begin` on, with nothing missing; returns the size of one, in bytes.

    Raises:
        ProcessFailed: one is missing, there twice, or degraded.
    """
    found, size, places = Counter[str](), 0, list(begin)
    async with kafka.consumer(deployed.servers.bootstrap, partitions=places) as reader, asyncio.timeout(MOST_S):
        for place, offset in begin.items():
            reader.seek(place, offset)
        ends = await reader.end_offsets(places)
        while [True for place, end in ends.items() if await reader.position(place) < end]:
            for records in (await reader.getmany(timeout_ms=200)).values():
                for record in records:
                    prediction = Prediction.FromString(record.value)
                    if prediction.channel == CHANNEL_KAFKA:
                        found[prediction.event_id] += 1
                        size = len(record.value)
                        if prediction.degradations or prediction.model_version != VERSION:
                            raise ProcessFailed(f"not the champion's answer: {prediction}")
    wrong = {event_id: found[event_id] for event_id in event_ids if found[event_id] != 1}
    if wrong:
        raise ProcessFailed(f"{len(wrong)} of {len(event_ids)} vectors do not have one prediction: {str(wrong)[:200]}")
    return size


if __name__ == "__main__":
    part("scorer", scorer)
