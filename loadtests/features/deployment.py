"""A deployed fraud pipeline on a benchmark's own servers: its topics, its workers, how far they are."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiokafka.admin import NewTopic

from deploy.local.triton_server import http_ok
from headrace.pipeline.state import FeaturePlan, compile_plan
from headrace.platform.kafka import KafkaAdmin
from headrace.platform.pipelines import load_pipeline
from headrace.platform.topics import Topics, create_topics, deployed_name
from loadtests.processes import Process, running
from loadtests.servers import Servers, free_ports

PARTITIONS = 4
KEPT_DAYS = 36_500.0
"""Kafka timestamps may be event times of years ago: nothing is deleted for its age."""
PIPELINE = "pipelines/fraud.py"
READY_S = 60.0
POLL_S = 0.1


@dataclass
class Worker(Process):
    """A worker of the `features` service that runs.

    Attributes:
        ops_port: where it answers /readyz.
    """

    ops_port: int

    async def ready(self) -> None:
        """Wait until it has been assigned its partitions.

        Raises:
            ProcessFailed: it has ended.
            TimeoutError: it does not become ready.
        """
        async with asyncio.timeout(READY_S):
            while not await asyncio.to_thread(http_ok, self.ops_port, "/readyz"):
                self.check()
                await asyncio.sleep(POLL_S)


@dataclass(frozen=True)
class Deployment:
    """A deployed pipeline.

    Attributes:
        servers: where it runs.
        namespace: sets it apart from others on the same servers.
    """

    servers: Servers
    namespace: str
    plan: FeaturePlan = field(default_factory=lambda: compile_plan(load_pipeline(PIPELINE)))

    @property
    def topics(self) -> Topics:
        """Its topics."""
        return Topics(deployed_name(self.plan.pipeline.name, self.namespace))

    async def create(self) -> None:
        """Create its topics."""
        await create_topics(self.servers.bootstrap, self.topics.deployed, PARTITIONS, event_days=KEPT_DAYS)

    @contextmanager
    def worker(self, cores: frozenset[int], number: int = 1, **settings: object) -> Iterator[Worker]:
        """A worker of the `features` service while the block runs.

        Args:
            cores: what it may run on.
            number: tells several workers of one deployment apart.
            **settings: of the service, by field.
        """
        (ops_port,) = free_ports(1)
        environment = {
            "HEADRACE_PIPELINE": PIPELINE,
            "HEADRACE_NAMESPACE": self.namespace,
            "HEADRACE_KAFKA_BOOTSTRAP": self.servers.bootstrap,
            "HEADRACE_REDIS_URL": self.servers.redis_url,
            "HEADRACE_STATE_DIR": str(self.servers.directory / f"state-{self.namespace}-{number}"),
            "HEADRACE_LOG_LEVEL": "warning",
            "HEADRACE_FEATURES_OPS_PORT": str(ops_port),
            **{f"HEADRACE_FEATURES_{name.upper()}": str(value) for name, value in settings.items()},
        }
        name = f"features-{self.namespace}-{number}"
        command = [sys.executable, "-m", "headrace.cli", "run", "features"]
        with running(name, command, cores=cores, directory=self.servers.directory, environment=environment) as process:
            yield Worker(process.name, process.popen, process.log, ops_port)

    def committed(self, admin: KafkaAdmin, group: str) -> Callable[[], Awaitable[int]]:
        """Asks how many records a group ("features", "features-outcomes") has committed."""

        async def ask() -> int:
            found = await admin.committed(self.topics.group(group))
            return sum(offset for offset, _ in found.values())

        return ask


async def create_plain_topics(bootstrap: str, names: list[str]) -> None:
    """Create topics that nothing leaves."""
    async with KafkaAdmin(bootstrap) as admin:
        await admin.create_topics(
            [NewTopic(name, PARTITIONS, 1, topic_configs={"retention.ms": "-1"}) for name in names]
        )


def appended(admin: KafkaAdmin, topic: str) -> Callable[[], Awaitable[int]]:
    """Asks how many records a topic holds."""

    async def ask() -> int:
        return sum((await admin.end_offsets([topic])).values())

    return ask
