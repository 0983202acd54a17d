"""Wiring of the stream processor: the one place where its parts are made, started and stopped."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import faust

from headrace.features.app import build_app
from headrace.features.assigned_source import AssignedSource
from headrace.features.event_merging import EventMerger
from headrace.features.event_stream import EventStream
from headrace.features.outcome_merging import OutcomeMerger
from headrace.features.outcome_stream import OutcomeStream
from headrace.features.settings import FeaturesSettings
from headrace.features.state_writer import StateWriter
from headrace.pipeline.state import compile_plan
from headrace.pipeline.time_units import SECOND
from headrace.platform import kafka
from headrace.platform.feature_state import EVENTS, OUTCOMES, FeatureStateReader
from headrace.platform.health import Health
from headrace.platform.lifecycle import Deadline
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis import connect, require_safe
from headrace.platform.topics import Topics, check_topics, deployed_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class FeaturesService:
    """The stream processor as `run_service` runs it."""

    def __init__(self, settings: FeaturesSettings, health: Health) -> None:
        self._settings = settings
        self._health = health
        self._stack = AsyncExitStack()
        self._app: faust.App | None = None
        self._failed: asyncio.Future[None] | None = None
        self._health.component("events")
        self._health.component("outcomes")

    async def start(self) -> None:
        """Connect, take partitions and begin."""
        settings = self._settings
        plan = compile_plan(load_pipeline(settings.pipeline))
        deployed = deployed_name(plan.pipeline.name, settings.namespace)
        topics = Topics(deployed)
        await check_topics(settings.kafka_bootstrap, deployed)
        client = connect(settings.redis_url, reply_timeout_s=settings.stall_timeout_s)
        self._stack.push_async_callback(client.aclose)
        await require_safe(client)
        reader = FeatureStateReader(client, plan, deployed)
        # A backstop, in wall-clock time: idle keys normally leave by the watermark.
        time_to_live_s = 2 * max(entity.retention for entity in plan.entities) // SECOND
        writer = StateWriter(client, reader.keys, time_to_live_s)
        producer = await self._stack.enter_async_context(kafka.producer(settings.kafka_bootstrap, linger_ms=1))

        events = EventStream(
            EventMerger(plan, reader, writer, settings.chunk_events),
            producer,
            topics,
            settings.commit_interval_s,
            settings.stall_timeout_s,
        )
        outcomes = OutcomeStream(OutcomeMerger(plan, reader.keys, writer), settings.stall_timeout_s)

        def source(name: str, topic: str, group: str, stream: EventStream | OutcomeStream) -> AssignedSource:
            return AssignedSource(
                name,
                topic,
                topics.group(group),
                settings.kafka_bootstrap,
                client,
                reader.keys,
                stream.assigned,
                self._health.component(name),
            )

        event_source = source(EVENTS, topics.events, "features", events)
        outcome_source = source(OUTCOMES, topics.outcomes, "features-outcomes", outcomes)
        for one in (event_source, outcome_source):
            await self._stack.enter_async_context(one.consuming())
        self._failed = asyncio.get_running_loop().create_future()
        loops = {
            "EventLoop": partial(
                event_source.run,
                partial(events.process, event_source),
                partial(events.commit, event_source),
                settings.batch_events,
            ),
            "OutcomeLoop": partial(
                outcome_source.run, partial(outcomes.process, outcome_source), _nothing, settings.batch_events
            ),
        }
        self._app = build_app(
            settings.kafka_bootstrap, topics, {name: partial(self._report, loop) for name, loop in loops.items()}
        )
        await self._app.start()

    async def run(self) -> None:
        """Until a loop fails; its failure is raised."""
        assert self._failed is not None
        await self._failed

    async def stop(self, deadline: Deadline) -> None:
        """Stop the loops after the batch that is under way, then disconnect. What is not committed is read again."""
        if self._app is not None:
            await self._app.stop()
        await self._stack.aclose()

    async def _report(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop and hand its failure to `run`: an app whose service died must not live on."""
        assert self._failed is not None
        try:
            await loop()
        except Exception as error:  # noqa: BLE001 (raised by run)
            if not self._failed.done():
                self._failed.set_exception(error)


async def _nothing() -> None:
    """There is nothing to do while idle."""
