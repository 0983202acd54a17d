"""The engine alone: records of `events` into state and encoded vectors, with a real Redis and without Kafka.

`python -m loadtests.features.engine --events 200000`
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from headrace.features.assigned_source import AssignedSource, PartitionBatch
from headrace.features.erasures import Erasures
from headrace.features.event_merging import NOTHING_MERGED, EventMerger
from headrace.features.event_stream import EventStream
from headrace.features.outcome_decoding import decode_outcomes
from headrace.features.outcome_merging import OutcomeMerger
from headrace.features.publishing import PartitionVectors, Publisher
from headrace.features.settings import FeaturesSettings
from headrace.features.source_positions import StartingPoint
from headrace.features.state_writer import StateWriter, time_to_live_s
from headrace.features.time_guard import TimeGuard
from headrace.pipeline.evaluation import MACHINE_CODE, load_kernel
from headrace.pipeline.state import FeaturePlan, compile_plan
from headrace.platform.feature_state import FeatureStateReader
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis import Client, connect
from headrace.platform.redis_connection import RedisConnections
from headrace.platform.topics import Topics
from headrace.v1.event_pb2 import Rejected
from loadtests.features.arguments import Options, part
from loadtests.features.deployment import PIPELINE
from loadtests.features.payments import Records, payments
from loadtests.figures import Figure, figure
from loadtests.machine import on, share_cores
from loadtests.servers import servers

GOAL_EVENTS_S = 60_000.0
WARM = 0.2
"""Share of the events that fill the state before the measurement begins."""


@dataclass(slots=True)
class Record:
    """What the stream uses of a consumed record."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class CountingOnly(Publisher):
    """Takes encoded vectors, and sends them nowhere.

    Attributes:
        vectors, rejected: how many there were.
    """

    def __init__(self) -> None:
        self.vectors = self.rejected = 0

    async def publish(self, vectors: Sequence[PartitionVectors], rejected: Sequence[Rejected]) -> None:
        """Count."""
        self.vectors += sum(len(one.values) for one in vectors)
        self.rejected += len(rejected)


class _Committing:
    """Takes commits as a consumer group does."""

    async def commit(self, offsets: Mapping[int, tuple[int, str]]) -> bool:
        return bool(offsets)


class Engine:
    """The handler of `events` that the worker has, for one partition, fed directly.

    Attributes:
        published: what it would have sent.
        client: its connection to Redis.
        reader: of the state that it keeps.
    """

    def __init__(
        self,
        client: Client,
        connections: RedisConnections,
        plan: FeaturePlan,
        deployed: str,
        settings: FeaturesSettings,
    ) -> None:
        """Args:
        client: connection for questions about Redis, bytes undecoded.
        connections: for the state.
        plan: the compiled pipeline.
        deployed: name of the deployed pipeline.
        settings: of the worker.
        """
        self.client = client
        self.published = CountingOnly()
        self.reader = FeatureStateReader(connections, plan, deployed)
        self._plan = plan
        self._settings = settings
        erasures = Erasures(connections, self.reader.keys)
        self._writer = StateWriter(connections, self.reader.keys, time_to_live_s(plan), erasures)
        self._outcomes = OutcomeMerger(plan, self.reader.keys, self._writer, erasures=erasures)
        kernel = load_kernel(settings.state_dir / MACHINE_CODE)
        merger = EventMerger(plan, self.reader, self._writer, settings.chunk_events, erasures, kernel=kernel)
        self._topics = Topics(deployed)
        self._stream = EventStream(merger, self.published, self._topics, settings.commit_interval_s)
        self._stream.assigned({0: StartingPoint(0, NOTHING_MERGED, 0, TimeGuard(), 0)})
        self._source = cast("AssignedSource", _Committing())
        self._next = 0

    async def merge_outcomes(self, values: Sequence[bytes]) -> None:
        """Merge outcomes."""
        now = time.time_ns() // 1_000_000
        for start in range(0, len(values), 500):
            records = [
                Record(self._topics.outcomes, 0, start + at, now, b"", value)
                for at, value in enumerate(values[start : start + 500])
            ]
            outcomes, _ = decode_outcomes(self._plan.pipeline, records)
            await self._outcomes.merge(0, outcomes, records[-1].offset)

    def batches(self, events: Sequence[tuple[bytes, bytes]]) -> list[list[Record]]:
        """Keys and values as consumed records, in the worker's batches."""
        size, now = self._settings.batch_events, time.time_ns() // 1_000_000
        records = [
            Record(self._topics.events, 0, self._next + at, now, key, value) for at, (key, value) in enumerate(events)
        ]
        self._next += len(records)
        return [records[start : start + size] for start in range(0, len(records), size)]

    async def handle(self, records: list[Record]) -> None:
        """Handle a batch as the worker does: decode, read, evaluate, append, trim, encode."""
        await self._stream.process(self._source, {0: PartitionBatch(cast("list[Any]", records), records[-1].offset)})


@asynccontextmanager
async def engine(redis_url: str, plan: FeaturePlan, deployed: str) -> AsyncIterator[Engine]:
    """An engine with the worker's default settings."""
    async with AsyncExitStack() as stack:
        client, connections = connect(redis_url), RedisConnections(redis_url)
        stack.push_async_callback(client.aclose)
        stack.push_async_callback(connections.aclose)
        yield Engine(client, connections, plan, deployed, FeaturesSettings())


async def redis_cpu_s(client: Client) -> float:
    """CPU time of Redis so far, in seconds."""
    info: dict[str, Any] = await client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


async def engine_alone(options: Options) -> list[Figure]:
    """Measure; see the module."""
    cores = share_cores()
    plan = compile_plan(load_pipeline(PIPELINE))
    made = Records(plan.pipeline, payments(options.events, options.source))
    with servers(cores.rest, kafka=False) as kept, on(cores.measured):
        async with engine(kept.redis_url, plan, "bench-engine") as one:
            await one.merge_outcomes([value for _, value in made.outcomes])
            batches = one.batches(made.events)
            warm = round(WARM * len(batches))
            for batch in batches[:warm]:
                await one.handle(batch)
            redis, wall, cpu = await redis_cpu_s(one.client), time.perf_counter(), time.process_time()
            for batch in batches[warm:]:
                await one.handle(batch)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            redis = await redis_cpu_s(one.client) - redis
            rewritten = int(await one.client.hget(one.reader.keys.sources, "rewritten") or 0)
            events = sum(map(len, batches[warm:]))
            if one.published.vectors != len(made):
                raise RuntimeError(
                    f"{one.published.vectors} vectors of {len(made)} events: {one.published.rejected} rejected"
                )
    return [
        figure("engine alone, by CPU time", events / cpu, "events/s", least=GOAL_EVENTS_S),
        figure("engine alone, by wall", events / wall, "events/s"),
        figure("Redis CPU per event", redis / events * 1e6, "µs", better="lower"),
        figure("logs rewritten (trims) per 1,000 events", rewritten / len(made) * 1000, ""),
    ]


if __name__ == "__main__":
    part("engine", engine_alone)
