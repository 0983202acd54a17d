"""A join process against the real broker, and predictions and labels for it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from headrace.pipeline import DAY
from headrace.platform import kafka
from headrace.platform.partitioning import murmur2_partition
from headrace.platform.topics import Topics
from headrace.v1.event_pb2 import Label, Rejected
from headrace.v1.prediction_pb2 import (
    OUTCOME_KIND_CORRECTED,
    OUTCOME_KIND_EXPIRED,
    ROLE_ANSWER,
    Outcome,
    Prediction,
    Role,
)

PIPELINE = str(Path(__file__).with_name("joined_pipeline.py"))
PARTITIONS = 4
EPOCH_US = 1_700_000_000_000_000
WAIT_S = 40.0
JSON = [("content-type", b"application/json")]


def prediction(event_id: str, time_us: int, role: Role.ValueType = ROLE_ANSWER, **fields: Any) -> Prediction:
    """A prediction of an event."""
    given: dict[str, Any] = {"prediction_id": f"p-{event_id}", "model_version": "000001", "score": 0.25} | fields
    return Prediction(event_id=event_id, event_time_us=time_us, role=role, features=[1.5], entities=["c"], **given)


def label(event_id: str, value: float, time_us: int) -> Label:
    """A label of an event."""
    return Label(event_id=event_id, value=value, label_time_us=time_us)


def summary(outcomes: Iterable[Outcome]) -> list[tuple[str, str, float, float | None]]:
    """Event id, kind, label and previous label of each outcome, sorted."""
    kinds = {OUTCOME_KIND_CORRECTED: "corrected", OUTCOME_KIND_EXPIRED: "expired"}
    return sorted(
        (
            one.prediction.event_id,
            kinds.get(one.kind, "labelled"),
            one.label.value,
            one.previous_label if one.HasField("previous_label") else None,
        )
        for one in outcomes
    )


@dataclass
class Deployment:
    """One deployed pipeline of its own: topics, stores, join processes."""

    bootstrap: str
    namespace: str
    topics: Topics
    directory: Path
    producer: Any
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    pipeline: str = PIPELINE

    @property
    def stores(self) -> Path:
        """Where the join keeps its stores."""
        return self.directory / "state" / "outcomes"

    async def start(self, **settings: Any) -> asyncio.subprocess.Process:
        """Start the service with the given settings of its own."""
        own = {"ops_port": 0, "expiry_interval_s": 0.05} | settings
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")} | {
            "HEADRACE_PIPELINE": self.pipeline,
            "HEADRACE_NAMESPACE": self.namespace,
            "HEADRACE_KAFKA_BOOTSTRAP": self.bootstrap,
            "HEADRACE_STATE_DIR": str(self.directory / "state"),
            **{f"HEADRACE_OUTCOMES_{name.upper()}": str(value) for name, value in own.items()},
        }
        with self._log_file(len(self.processes)).open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headrace.cli.__main__",
                "run",
                "outcomes",
                env=environment,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def log(self, number: int = -1) -> list[dict[str, Any]]:
        """What a process logged, the newest by default."""
        text = self._log_file(range(len(self.processes))[number]).read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    async def until_ready(self) -> None:
        """Wait until the newest process joins what comes."""

        async def ready() -> bool:
            return await self._status("readyz") == 200

        await self.until(ready, "the join is ready")

    async def kill(self, process: asyncio.subprocess.Process | None = None) -> None:
        """Kill -9 a process, the newest by default."""
        process = process or self.processes[-1]
        process.send_signal(signal.SIGKILL)
        await asyncio.wait_for(process.wait(), 10)

    async def terminate(self) -> int:
        """Stop the newest process as a supervisor does; its exit status."""
        self.processes[-1].terminate()
        return await asyncio.wait_for(self.processes[-1].wait(), 25)

    async def send_predictions(self, predictions: Iterable[Prediction], partition: int | None = None) -> None:
        """Publish predictions, where they belong or in the given partition."""
        await self._send(self.topics.predictions, predictions, partition)

    async def send_labels(self, labels: Iterable[Label], partition: int | None = None) -> None:
        """Publish labels, where they belong or in the given partition."""
        await self._send(self.topics.labels, labels, partition)

    async def joined(self) -> None:
        """Wait until all that was published is read and committed."""

        async def done() -> bool:
            return await self.left() == 0

        await self.until(done, "everything is committed")

    async def outcomes(self) -> list[Outcome]:
        """All committed outcomes."""
        return [Outcome.FromString(value) for value in await self._read(self.topics.outcomes)]

    async def rejected(self) -> list[Rejected]:
        """All committed rejected records."""
        return [Rejected.FromString(value) for value in await self._read(self.topics.rejected)]

    async def until_outcomes(self, count: int) -> list[Outcome]:
        """Wait until there are that many; all of them."""

        async def reached() -> bool:
            return len(await self.outcomes()) >= count

        await self.until(reached, f"there are {count} outcomes")
        return await self.outcomes()

    async def metric(self, series: str) -> float:
        """One series as the newest process shows it, 0 where it does not."""
        async with aiohttp.ClientSession() as session, session.get(self._url("metrics")) as response:
            lines = (await response.text()).splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series)), 0.0)

    async def until(self, holds: Callable[[], Awaitable[bool]], what: str, timeout_s: float = WAIT_S) -> None:
        """Wait for a condition while the newest process runs."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not await holds():
            assert self.processes[-1].returncode is None, f"the process ended before {what}: {self.log()[-3:]}"
            assert asyncio.get_running_loop().time() < deadline, f"not in {timeout_s} s: {what}; {self.log()[-3:]}"
            await asyncio.sleep(0.05)

    def partition_of(self, event_id: str) -> int:
        """Where an event belongs."""
        return murmur2_partition(event_id.encode(), PARTITIONS)

    async def committed(self) -> dict[kafka.TopicPartition, int]:
        """Committed offsets of the join."""
        return await kafka.committed_offsets(self.bootstrap, self.topics.group("outcomes"))

    async def left(self) -> int:
        """Offsets of both topics that are not committed yet."""
        committed = await self.committed()
        async with kafka.KafkaAdmin(self.bootstrap) as admin:
            ends = await admin.end_offsets([self.topics.predictions, self.topics.labels])
        return sum(max(0, end - committed.get(partition, 0)) for partition, end in ends.items())

    async def close(self) -> None:
        """End the processes and delete the topics."""
        for process in self.processes:
            if process.returncode is None:
                await self.kill(process)
        async with kafka.KafkaAdmin(self.bootstrap) as admin:
            await admin.delete_topics(self.topics.data + self.topics.single)

    async def _send(self, topic: str, messages: Iterable[Prediction | Label], partition: int | None) -> None:
        sent = [
            await self.producer.send(
                topic, message.SerializeToString(), key=message.event_id.encode(), partition=partition
            )
            for message in messages
        ]
        await asyncio.gather(*sent)

    async def _read(self, topic: str) -> Sequence[bytes]:
        ends = await kafka.end_offsets(self.bootstrap, topic)
        partitions = [kafka.TopicPartition(topic, number) for number, end in ends.items() if end]
        if not partitions:
            return []
        values: list[bytes] = []
        async with kafka.consumer(self.bootstrap, partitions=partitions, offset_reset="earliest") as reader:
            async with asyncio.timeout(WAIT_S):
                while any([await reader.position(one) < ends[one.partition] for one in partitions]):
                    found = await reader.getmany(timeout_ms=200)
                    values += [record.value for records in found.values() for record in records]
        return values

    async def _status(self, page: str) -> int:
        if not any("ops_port" in entry for entry in self.log()):
            return 0
        async with aiohttp.ClientSession() as session, session.get(self._url(page)) as response:
            return response.status

    def _url(self, page: str) -> str:
        port = next(entry["ops_port"] for entry in self.log() if "ops_port" in entry)
        return f"http://127.0.0.1:{port}/{page}"

    def _log_file(self, number: int) -> Path:
        return self.directory / f"outcomes-{number}.log"


def on_day(day: float) -> int:
    """An event time, in microseconds."""
    return EPOCH_US + round(day * DAY)
