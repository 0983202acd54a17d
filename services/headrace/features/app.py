"""The Faust app that hosts the stream processor.

Faust gives the process its shape: the app starts and stops its services in order and runs its agents. `events` and
`outcomes` are read by services of the app on aiokafka batches rather than by agents: Faust's own consumer reads
uncommitted records, and its agents acknowledge an event whose processing failed (docs/decisions/0001).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import faust
from google.protobuf.message import DecodeError
from mode import Service

from headrace.features.metrics import REJECTED_RECORDS
from headrace.platform.topics import Topics
from headrace.v1.event_pb2 import Rejected


def build_app(
    bootstrap: str, topics: Topics, directory: Path, loops: dict[str, Callable[[], Awaitable[None]]]
) -> faust.App:
    """The app with one service per loop, and an agent that keeps count of what all services set aside.

    Args:
        bootstrap: Kafka brokers.
        topics: names.
        directory: where Faust makes the directories of its tables; there are none, but it makes them all the same.
        loops: by name, what each service runs. It must report a failure by itself: the app would live on.
    """
    app = faust.App(
        topics.definition_group("features-rejected"),
        broker=[f"kafka://{address}" for address in bootstrap.split(",")],
        store="memory://",
        datadir=directory,
        processing_guarantee="at_least_once",
        autodiscover=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        reply_create_topic=False,
        web_enabled=False,
        worker_redirect_stdouts=False,
        broker_commit_interval=1.0,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.5,
        broker_request_timeout=40.0,
        consumer_max_fetch_size=4 << 20,
        stream_wait_empty=True,
    )
    rejected = app.topic(
        topics.rejected, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )

    @app.agent(rejected, concurrency=1)
    async def count_rejected(stream: Any) -> None:
        async for value in stream:
            try:
                record = Rejected.FromString(value or b"")
            except DecodeError:
                REJECTED_RECORDS.labels("", "undecodable").inc()
            else:
                REJECTED_RECORDS.labels(record.service, record.reason).inc()

    for name, loop in loops.items():
        app.service(_Loop(name, loop))  # type: ignore[arg-type]  # takes instances too
    return app


class _Loop(Service):
    """A service of the app that runs one loop."""

    def __init__(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._name = name
        self._run_loop = loop

    @Service.task
    async def _run(self) -> None:
        await self._run_loop()

    @property
    def label(self) -> str:
        """How the app's logs name it."""
        return self._name
