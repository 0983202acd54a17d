"""A deployed pipeline whose six services run: events and labels go in, and what comes out is collected."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import tritonclient.grpc.aio as triton_grpc
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner

from headrace.cli.__main__ import headrace
from headrace.learner.announcements import read_announced
from headrace.platform import kafka
from headrace.platform.redis import connect
from headrace.platform.topics import DATA_PARTITIONS, Topics
from headrace.v1.event_pb2 import Event, Label
from headrace.v1.model_pb2 import ModelVersion, RouteTable
from headrace.v1.prediction_pb2 import ROLE_ANSWER, Prediction
from tests.integration.gateway.deployment import eventually

PATIENCE_S = 90.0


class LiveLoop:
    """What goes into the loop and what comes out. Made by `live_loop`.

    Attributes:
        answers: the first answer to each event, by event id.
        routes: the tables, oldest first.
    """

    def __init__(self, bootstrap: str, topics: Topics, producer: AIOKafkaProducer) -> None:
        self.bootstrap = bootstrap
        self.topics = topics
        self.answers: dict[str, Prediction] = {}
        self.routes: list[RouteTable] = []
        self._producer = producer

    async def send_events(self, events: Iterable[Event], key: str) -> None:
        """Publish events, each keyed by one of its fields."""
        await self._send(self.topics.events, [(str(one.fields[key]), one.SerializeToString()) for one in events])

    async def send_labels(self, labels: Iterable[Label]) -> None:
        """Publish labels."""
        await self._send(self.topics.labels, [(one.event_id, one.SerializeToString()) for one in labels])

    async def answered(self, event_ids: Iterable[str]) -> None:
        """Wait until each of these events has an answer on the log."""
        wanted = set(event_ids)
        await self._until(lambda: wanted <= self.answers.keys(), f"answers to {len(wanted)} events")

    async def adopted(self, reached: Callable[[ModelVersion], bool], what: str) -> ModelVersion:
        """Wait until every gateway uses a champion that is as asked for."""

        def is_there() -> bool:
            last = self.routes[-1] if self.routes else RouteTable()
            return last.adopted and reached(last.champion.model)

        await self._until(is_there, f"{what} answers")
        return self.routes[-1].champion.model

    async def announced(self) -> list[ModelVersion]:
        """The versions on `models`."""
        return await read_announced(self.bootstrap, self.topics)

    async def follow(self) -> None:
        """Collect until cancelled."""
        partitions = [kafka.TopicPartition(self.topics.predictions, number) for number in range(DATA_PARTITIONS)]
        partitions.append(kafka.TopicPartition(self.topics.routes, 0))
        async with kafka.consumer(self.bootstrap, partitions=partitions) as reader:
            while True:
                for partition, records in (await reader.getmany(timeout_ms=100)).items():
                    for record in records:
                        if partition.topic == self.topics.routes:
                            self.routes.append(RouteTable.FromString(record.value))
                            continue
                        prediction = Prediction.FromString(record.value)
                        if prediction.role == ROLE_ANSWER:
                            self.answers.setdefault(prediction.event_id, prediction)

    async def _send(self, topic: str, records: Sequence[tuple[str, bytes]]) -> None:
        sent = [await self._producer.send(topic, value, key=key.encode()) for key, value in records]
        await asyncio.gather(*sent)

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        async def holds() -> bool:
            return condition()

        await eventually(holds, what, PATIENCE_S)


@asynccontextmanager
async def live_loop(bootstrap: str, deployed: str) -> AsyncIterator[LiveLoop]:
    """Follow a deployed pipeline whose topics are there, while the block runs."""
    async with kafka.producer(bootstrap) as producer:
        loop = LiveLoop(bootstrap, Topics(deployed), producer)
        following = asyncio.create_task(loop.follow())
        try:
            yield loop
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following


async def remove(loop: LiveLoop, redis_url: str, triton_url: str) -> None:
    """Remove what a deployed pipeline whose services have ended has left: models, keys and topics."""
    deployed = loop.topics.deployed
    triton = triton_grpc.InferenceServerClient(triton_url)
    statistics = await triton.get_inference_statistics()
    for name in {one.name for one in statistics.model_stats if one.name.startswith(f"{deployed}-")}:
        await triton.unload_model(name)
    await triton.close()
    client = connect(redis_url)
    if keys := [key async for key in client.scan_iter(f"headrace:{{{deployed}}}:*", count=1000)]:
        await client.delete(*keys)
    await client.aclose()
    async with kafka.KafkaAdmin(loop.bootstrap) as admin:
        await admin.delete_topics(loop.topics.all)


async def command(environment: Mapping[str, str], *arguments: str) -> Any:
    """What a `headrace` command says with --json, with these settings and no others."""
    none: dict[str, str | None] = {name: None for name in os.environ if name.startswith("HEADRACE_")}
    own = {name: value for name, value in environment.items() if name.startswith("HEADRACE_")}
    result = await asyncio.to_thread(CliRunner().invoke, headrace, [*arguments, "--json"], env=none | own)
    assert result.exit_code in {0, 1}, result.output
    return json.loads(result.output)
