"""Workers of the stream processor as processes, on a deployed pipeline of their own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from headrace.pipeline.state import FeaturePlan
from headrace.platform import kafka
from headrace.platform.feature_state import StateKeys
from headrace.platform.kafka import KafkaAdmin
from headrace.platform.topics import Topics, create_topics
from headrace.v1.prediction_pb2 import Outcome
from tests.integration.features.log_contents import Contents
from tests.integration.features.payments import PARTITIONS, Sent

POLL_S = 0.02

DUMP = """
local dumped = {}
for _, name in ipairs(redis.call('KEYS', ARGV[1])) do
  table.insert(dumped, name)
  table.insert(dumped, redis.call('DUMP', name))
end
return dumped
"""
RESTORE = """
for _, name in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', name) end
for i = 2, #ARGV, 2 do redis.call('RESTORE', ARGV[i], 0, ARGV[i + 1]) end
"""


class Aborted(Exception):
    """Raised inside a transaction so that it is aborted."""


@dataclass
class Worker:
    """A worker: a process, started again whenever it is asked for and has ended."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    process: asyncio.subprocess.Process | None = None
    starts: int = 0

    async def start(self) -> None:
        """Start the process."""
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, env=self.environment, stdout=output, stderr=asyncio.subprocess.STDOUT
            )
        self.starts += 1

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process is None or self.process.returncode is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def wait(self, timeout_s: float = 25) -> int:
        """Wait for the end; the exit status."""
        assert self.process is not None
        return await asyncio.wait_for(self.process.wait(), timeout_s)

    def text(self) -> str:
        """What it has written so far."""
        return self.log.read_text()

    def said(self, event: str) -> list[dict[str, Any]]:
        """Its log entries with that text, since the last start."""
        entries = [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]
        starts = [at for at, entry in enumerate(entries) if entry["event"] == "service starting"]
        return [entry for entry in entries[starts[-1] :] if entry["event"] == event] if starts else []

    def partitions(self, source: str) -> list[int]:
        """The partitions that it was assigned last."""
        assigned = [entry for entry in self.said("partitions assigned") if entry["source"] == source]
        return [int(partition) for partition in assigned[-1]["partitions"]] if assigned else []

    async def get(self, path: str) -> str:
        """What its ops server answers, whatever the status."""
        port = self.said("service starting")[-1]["ops_port"]
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
            return await response.text()

    async def answers(self, path: str) -> bool:
        """Whether its ops server answers with status 200."""
        starting = self.said("service starting")
        if not starting:
            return False
        url = f"http://127.0.0.1:{starting[-1]['ops_port']}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status == 200


@dataclass
class Deployment:
    """A deployed pipeline with topics and state of its own."""

    bootstrap: str
    redis_url: str
    namespace: str
    topics: Topics
    plan: FeaturePlan
    logs: Path
    client: Redis
    workers: list[Worker] = field(default_factory=list)
    pipeline: str = "pipelines/fraud.py"
    started: int = 0

    @property
    def keys(self) -> StateKeys:
        """Names of the state."""
        return StateKeys(self.topics.deployed, self.plan.pipeline.features_fingerprint)

    async def create_topics(self) -> None:
        """Create the topics."""
        await create_topics(self.bootstrap, self.topics.deployed, PARTITIONS, definition=self.topics.definition)

    def environment(self, **settings: object) -> dict[str, str]:
        """Settings of a process of this deployment."""
        return {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")} | {
            "HEADRACE_PIPELINE": self.pipeline,
            "HEADRACE_DEFINITION": self.topics.definition,
            "HEADRACE_NAMESPACE": self.namespace,
            "HEADRACE_KAFKA_BOOTSTRAP": self.bootstrap,
            "HEADRACE_REDIS_URL": self.redis_url,
            "HEADRACE_FEATURES_OPS_PORT": "0",
            **{f"HEADRACE_FEATURES_{name.upper()}": str(value) for name, value in settings.items()},
        }

    async def start(self, **settings: object) -> Worker:
        """Start a worker."""
        worker = Worker(
            [sys.executable, "-m", "headrace.cli", "run", "features"],
            self.environment(**settings),
            self.logs / f"worker{self.topics.definition}-{self.started}.log",
        )
        self.started += 1
        self.workers.append(worker)
        await worker.start()
        return worker

    async def publish(self, records: Sequence[Sent]) -> None:
        """Publish records to `events`."""
        async with kafka.producer(self.bootstrap) as producer:
            sent: list[Awaitable[Any]] = [
                await producer.send(
                    self.topics.events, one.value, key=one.key, partition=one.partition, headers=one.headers
                )
                for one in records
            ]
            await asyncio.gather(*sent)

    async def publish_outcomes(self, outcomes: Sequence[Outcome], per_transaction: int = 200) -> None:
        """Publish outcomes as the join does, in transactions, some of which are aborted first."""
        async with kafka.transactional_producer(self.bootstrap, f"{self.topics.deployed}.test") as producer:
            for start in range(0, len(outcomes), per_transaction):
                batch = outcomes[start : start + per_transaction]
                if start % (3 * per_transaction) == 0:
                    await self._abort(producer, batch)
                async with kafka.transaction(producer):
                    await self._send(producer, batch)

    async def abort_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Publish outcomes in a transaction that is aborted."""
        async with kafka.transactional_producer(self.bootstrap, f"{self.topics.deployed}.test") as producer:
            await self._abort(producer, outcomes)

    async def _abort(self, producer: AIOKafkaProducer, outcomes: Sequence[Outcome]) -> None:
        with suppress(Aborted):
            async with kafka.transaction(producer):
                await self._send(producer, outcomes)
                raise Aborted

    async def _send(self, producer: AIOKafkaProducer, outcomes: Sequence[Outcome]) -> None:
        sent: list[Awaitable[Any]] = [
            await producer.send(self.topics.outcomes, one.SerializeToString(), key=one.prediction.event_id.encode())
            for one in outcomes
        ]
        await asyncio.gather(*sent)

    async def publish_raw(self, topic: str, values: Sequence[bytes]) -> None:
        """Publish values without a transaction."""
        async with kafka.producer(self.bootstrap) as producer:
            for value in values:
                await kafka.send(producer, topic, value, partition=0)

    async def recreate(self, topic: str) -> None:
        """Delete a topic and create it anew."""
        async with KafkaAdmin(self.bootstrap) as admin:
            await admin.delete_topics([topic])

            async with asyncio.timeout(20):
                while topic in await admin.partitions([topic]):  # noqa: ASYNC110 (nothing tells of it)
                    await asyncio.sleep(POLL_S)
        await self.create_topics()

    async def dump_state(self) -> list[Any]:
        """The state at one moment."""
        dumped: list[Any] = await self.client.eval(DUMP, 0, f"{self.keys.prefix}:*")
        return dumped

    async def restore_state(self, dumped: list[Any]) -> None:
        """Take the state back to what it was, at one moment."""
        await self.client.eval(RESTORE, 0, f"{self.keys.prefix}:*", *dumped)

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run `headrace` with arguments; its exit status and what it says."""
        process = await self.begin_command(*arguments)
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def begin_command(self, *arguments: str) -> asyncio.subprocess.Process:
        """Begin to run `headrace` with arguments."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headrace.cli",
            *arguments,
            env=self.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def emitted(self) -> int:
        """Number of vectors in `vectors`, doubled ones included."""
        async with KafkaAdmin(self.bootstrap) as admin:
            return sum((await admin.end_offsets([self.topics.vectors])).values())

    async def until(self, reached: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 100) -> None:
        """Wait until something holds. A worker that ends meanwhile is an error."""
        await self._until(reached, what, timeout_s, restart=False)

    async def until_supervised(self, reached: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 100) -> None:
        """Wait until something holds, and start workers again that end meanwhile, as a supervisor does."""
        await self._until(reached, what, timeout_s, restart=True)

    async def _until(
        self, reached: Callable[[], Awaitable[bool]], what: str, timeout_s: float, *, restart: bool
    ) -> None:
        end = time.monotonic() + timeout_s
        while not await reached():
            for worker in self.workers:
                if worker.ended and restart:
                    await worker.start()
                assert not worker.ended, f"the worker ended with {worker.process.returncode}:\n{worker.text()[-6000:]}"  # type: ignore[union-attr]
            assert time.monotonic() < end, f"not within {timeout_s} s: {what}\n{self._log()}"
            await asyncio.sleep(POLL_S)

    def _log(self) -> str:
        return "\n".join(worker.text()[-3000:] for worker in self.workers)

    async def until_emitted(self, count: int, *, supervised: bool = False) -> None:
        """Wait until there are that many vectors."""
        async with KafkaAdmin(self.bootstrap) as admin:

            async def reached() -> bool:
                return sum((await admin.end_offsets([self.topics.vectors])).values()) >= count

            await self._until(reached, f"{count} vectors", 100, restart=supervised)

    async def caught_up(self) -> bool:
        """Whether both groups have committed all that there is."""
        try:
            async with KafkaAdmin(self.bootstrap, timeout_s=5) as admin:
                for topic, group in ((self.topics.events, "features"), (self.topics.outcomes, "features-outcomes")):
                    committed = await admin.committed(self.topics.definition_group(group))
                    ends = await admin.end_offsets([topic])
                    if any(end and committed.get(at, (0, ""))[0] < end for at, end in ends.items()):
                        return False
        except kafka.KafkaFault:
            return False
        return True

    async def contents(self) -> Contents:
        """What the topics hold."""
        return await Contents.read(self.bootstrap, self.topics, self.plan)

    async def assert_exact(self) -> Contents:
        """No event without its vector, each first vector as recomputed, no log with a wrong record."""
        contents = await self.contents()
        assert contents.missing_vectors() == []
        assert contents.wrong_vectors() == []
        assert await contents.wrong_keys(self.client, self.keys) == []
        assert {(r.source.partition, r.source.offset) for r in contents.rejected} == set(contents.refused)
        return contents

    async def close_workers(self) -> None:
        """End the workers."""
        for worker in self.workers:
            if not worker.ended:
                worker.send(signal.SIGKILL)
                await worker.wait()

    async def close(self) -> None:
        """End the workers, delete topics and state."""
        await self.close_workers()
        async with KafkaAdmin(self.bootstrap) as admin:
            await admin.delete_topics(self.topics.data + self.topics.single)
        async for name in self.client.scan_iter(f"{self.keys.prefix}*", 1000):
            await self.client.unlink(name)
