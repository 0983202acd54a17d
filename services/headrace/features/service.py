"""Wiring of the stream processor: the one place where its parts are made, started and stopped."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from functools import partial

import faust
from aiokafka.errors import KafkaError
from prometheus_client import REGISTRY

from headrace.features.app import build_app
from headrace.features.assigned_source import AssignedSource, PartitionStream
from headrace.features.erasures import Erasures
from headrace.features.event_merging import EventMerger
from headrace.features.event_stream import EventStream
from headrace.features.metrics import DataQualityCollector
from headrace.features.outcome_merging import OutcomeMerger
from headrace.features.outcome_stream import OutcomeStream
from headrace.features.publishing import Publisher
from headrace.features.settings import FeaturesSettings
from headrace.features.state_description import store_description
from headrace.features.state_writer import StateWriter, time_to_live_s
from headrace.features.stored_states import DEFINITION
from headrace.features.sweeping import Sweeper
from headrace.pipeline.evaluation import MACHINE_CODE, load_kernel
from headrace.pipeline.state import compile_plan
from headrace.platform import kafka
from headrace.platform.feature_state import EVENTS, OUTCOMES, FeatureStateReader
from headrace.platform.health import Health
from headrace.platform.lifecycle import Deadline
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis import Client, answering, connect, require_safe, watch_safety
from headrace.platform.redis_connection import RedisConnections
from headrace.platform.topics import Topics, check_topics, deployed_name


class FeaturesService:
    """The stream processor as `run_service` runs it."""

    def __init__(self, settings: FeaturesSettings, health: Health) -> None:
        self._settings = settings
        self._health = health
        self._stack = AsyncExitStack()
        self._app: faust.App | None = None
        self._sources: dict[str, AssignedSource] = {}
        self._sweeper: Sweeper
        self._client: Client
        self._ended: dict[str, asyncio.Future[None]] = {}
        self._health.component("events")
        self._health.component("outcomes")

    async def start(self) -> None:
        """Connect, take partitions and begin."""
        settings = self._settings
        plan = compile_plan(load_pipeline(settings.pipeline))
        deployed = deployed_name(plan.pipeline.name, settings.namespace)
        topics = Topics(deployed, definition=settings.definition)
        await check_topics(settings.kafka_bootstrap, deployed, definition=settings.definition)
        client = connect(settings.redis_url, reply_timeout_s=settings.stall_timeout_s / 2)
        self._stack.push_async_callback(client.aclose)
        await require_safe(client)
        self._client = client
        connections = RedisConnections(settings.redis_url, reply_timeout_s=settings.stall_timeout_s / 2)
        self._stack.push_async_callback(connections.aclose)
        kernel = await asyncio.to_thread(load_kernel, settings.state_dir / MACHINE_CODE)
        reader = FeatureStateReader(connections, plan, deployed)
        erasures = Erasures(connections, reader.keys)
        writer = StateWriter(connections, reader.keys, time_to_live_s(plan), erasures)
        with answering():
            await client.hset(reader.keys.sources, DEFINITION, settings.definition)
            await store_description(client, reader.keys, plan.pipeline)
        self._sweeper = Sweeper(client, plan, reader.keys, writer, settings.sweep_keys_per_s)
        producer = await self._stack.enter_async_context(kafka.producer(settings.kafka_bootstrap, linger_ms=1))

        publisher = Publisher(producer, topics)
        events = EventStream(
            EventMerger(plan, reader, writer, settings.chunk_events, erasures, kernel=kernel),
            publisher,
            topics,
            settings.commit_interval_s,
            settings.idle_after_s,
        )
        collector = DataQualityCollector(events.quality.summary)
        REGISTRY.register(collector)
        self._stack.callback(REGISTRY.unregister, collector)
        streams: dict[str, tuple[str, str, PartitionStream]] = {
            EVENTS: (topics.events, "features", events),
            OUTCOMES: (
                topics.outcomes,
                "features-outcomes",
                OutcomeStream(OutcomeMerger(plan, reader.keys, writer, erasures=erasures), publisher),
            ),
        }
        for name, (topic, group, stream) in streams.items():
            source = AssignedSource(
                name,
                topic,
                topics.definition_group(group),
                settings.kafka_bootstrap,
                client,
                reader.keys,
                stream,
                self._health.component(name),
                self._health.heartbeat(name, 2 * settings.stall_timeout_s),
                settings.stall_timeout_s,
            )
            self._sources[name] = source
            await self._stack.enter_async_context(source.consuming())
        self._ended = {name: asyncio.get_running_loop().create_future() for name in self._sources}
        directory = settings.state_dir / "faust" / deployed
        directory.mkdir(parents=True, exist_ok=True)
        self._app = build_app(
            settings.kafka_bootstrap,
            topics,
            directory,
            {f"{name} loop": partial(self._read, name) for name in self._sources},
        )
        try:
            await self._app.start()
        except KafkaError as error:
            raise kafka.translate(error, "the stream processor did not start") from error

    async def run(self) -> None:
        """Until a part fails, which is raised, or until both sources have been stopped."""
        tasks = [asyncio.create_task(source.watch()) for source in self._sources.values()]
        tasks += [asyncio.create_task(self._sweeper.run(lambda: 0 in self._sources[EVENTS].partitions))]
        tasks += [asyncio.create_task(watch_safety(self._client))]
        tasks += [asyncio.create_task(self._watch_app()), asyncio.create_task(self._all_ended())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def drain(self, deadline: Deadline) -> None:
        """Finish and commit the batches that are under way."""
        for source in self._sources.values():
            source.stop()
        await asyncio.wait(self._ended.values(), timeout=deadline.remaining() / 2)

    async def stop(self, deadline: Deadline) -> None:
        """Disconnect. What is not committed is read again."""
        if self._app is not None:
            with suppress(TimeoutError):  # the process ends anyhow
                async with asyncio.timeout(deadline.remaining() / 2):
                    await self._app.stop()
        await self._stack.aclose()

    async def _read(self, name: str) -> None:
        """Read a source, as a service of the app, and tell `run` how it ended."""
        ended = self._ended[name]
        try:
            await self._sources[name].run(self._settings.batch_events)
        except Exception as error:  # noqa: BLE001 (raised by run)
            if not ended.done():
                ended.set_exception(error)
        else:
            if not ended.done():
                ended.set_result(None)

    async def _all_ended(self) -> None:
        await asyncio.gather(*self._ended.values())

    async def _watch_app(self) -> None:
        assert self._app is not None
        await self._app.wait_until_stopped()
        raise RuntimeError("the Faust app has stopped") from self._app.crash_reason
