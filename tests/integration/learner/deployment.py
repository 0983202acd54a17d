"""A learner process against the real broker, and outcomes for it to learn."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.learner.announcements import read_announced
from headrace.learner.replay import Replay, replay
from headrace.pipeline import Pipeline
from headrace.platform import kafka
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import KeyPair, Verifier
from headrace.platform.topics import Topics, create_topics
from headrace.v1.event_pb2 import Label
from headrace.v1.model_pb2 import LearnerCommand, ModelVersion, RouteTable
from headrace.v1.prediction_pb2 import OUTCOME_KIND_CORRECTED, OUTCOME_KIND_LABELLED, Outcome, Prediction

PIPELINE = "pipelines/fraud.py"
PARTITIONS = 4
SCALES = (53.0, 1.0, 1.0, 2.0, 53.0, 14.0, 53.0, 60.0, 53.0, 1.0, 0.01, 7.0, 0.01, 30.0, 0.01)


class Aborted(Exception):
    """Raised inside a transaction so that it is aborted."""


@dataclass
class Deployment:
    """One deployed pipeline of its own: topics, keys, artifacts, learner processes."""

    bootstrap: str
    topics: Topics
    namespace: str
    pipeline: Pipeline
    store: ArtifactStore
    keys: KeyPair
    logs: Path
    declaration: str = PIPELINE
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    def declare(self, path: Path, replaced: str, by: str) -> None:
        """Use a declaration like the default one, with one text replaced by another."""
        declared = Path(PIPELINE).read_text(encoding="utf-8")
        assert replaced in declared
        path.write_text(declared.replace(replaced, by), encoding="utf-8")
        self.declaration = str(path)

    async def start(self, **settings: Any) -> asyncio.subprocess.Process:
        """Start a learner with the given settings of its own, beside those that all tests share."""
        own = {"ops_port": 0, "gather_s": 0.02, "publish_interval_s": 0.05} | settings
        environment = self.environment() | {
            f"HEADRACE_LEARNER_{name.upper()}": str(value) for name, value in own.items()
        }
        with self.log_of(len(self.processes)).open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headrace.cli.__main__",
                "run",
                "learner",
                env=environment,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def environment(self) -> dict[str, str]:
        """Environment of a process of this deployment."""
        return {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")} | {
            "HEADRACE_PIPELINE": self.declaration,
            "HEADRACE_NAMESPACE": self.namespace,
            "HEADRACE_KAFKA_BOOTSTRAP": self.bootstrap,
            "HEADRACE_ARTIFACTS": str(self.store.directory),
            "HEADRACE_LEARNER_SIGNING_KEY": str(self.keys.private),
            "HEADRACE_SIGNING_PUBLIC_KEY": str(self.keys.public),
        }

    async def command_line(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Run a `headrace` command; its status and what it wrote."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headrace.cli.__main__",
            *arguments,
            env=self.environment() | variables,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        written, _ = await asyncio.wait_for(process.communicate(), 200)
        return process.returncode or 0, written.decode()

    def log_of(self, number: int) -> Path:
        """What the process of that number wrote."""
        return self.logs / f"learner-{number}.log"

    def log(self) -> str:
        """What the newest process wrote."""
        return self.log_of(len(self.processes) - 1).read_text()

    async def kill(self) -> None:
        """Kill -9 the newest process."""
        self.processes[-1].send_signal(signal.SIGKILL)
        assert await asyncio.wait_for(self.processes[-1].wait(), 10) == -signal.SIGKILL

    async def terminate(self) -> int:
        """Stop the newest process as a supervisor does; its exit status."""
        self.processes[-1].terminate()
        return await asyncio.wait_for(self.processes[-1].wait(), 25)

    async def announced(self) -> list[ModelVersion]:
        """The versions in `models`."""
        return await read_announced(self.bootstrap, self.topics)

    async def replay(self, version: str) -> Replay:
        """The version rebuilt from its recorded order."""
        return await replay(
            version,
            bootstrap=self.bootstrap,
            topics=self.topics,
            pipeline=self.pipeline,
            store=self.store,
            verifier=Verifier.read(self.keys.public),
        )

    async def until(self, reached: Callable[[list[ModelVersion]], bool], timeout_s: float = 40) -> list[ModelVersion]:
        """Wait until what is announced is as asked for, while the newest process runs."""

        async def check() -> list[ModelVersion]:
            while True:
                versions = await self.announced()
                if reached(versions):
                    return versions
                assert self.processes[-1].returncode is None, self.log()
                await asyncio.sleep(0.05)

        try:
            return await asyncio.wait_for(check(), timeout_s)
        except TimeoutError:
            versions = await self.announced()
            raise AssertionError(f"after {timeout_s} s: {versions[-1:]}\n{self.log()}") from None

    async def until_logged(self, text: str, timeout_s: float = 30) -> None:
        """Wait until the newest process wrote a text."""

        async def check() -> None:
            while text not in self.log():
                assert self.processes[-1].returncode is None, self.log()
                await asyncio.sleep(0.02)

        await asyncio.wait_for(check(), timeout_s)

    async def feed(self, outcomes: Sequence[Outcome], per_transaction: int = 50, pause_s: float = 0.0) -> list[int]:
        """Publish outcomes as the join does, in transactions, some of which are aborted; the end offsets."""
        async with kafka.transactional_producer(self.bootstrap, f"{self.topics.deployed}.test") as producer:
            for start in range(0, len(outcomes), per_transaction):
                batch = outcomes[start : start + per_transaction]
                if start % (3 * per_transaction) == 0:
                    with suppress(Aborted):
                        async with kafka.transaction(producer):
                            await self._send(producer, batch)
                            raise Aborted
                async with kafka.transaction(producer):
                    await self._send(producer, batch)
                await asyncio.sleep(pause_s)
        return await self.ends()

    async def ends(self) -> list[int]:
        """End offsets of `outcomes`, those of the markers of transactions included."""
        ends = await kafka.end_offsets(self.bootstrap, self.topics.outcomes)
        return [ends[partition] for partition in range(PARTITIONS)]

    async def command(self, publish_at: Sequence[int], name: str) -> None:
        """Tell the learner to publish."""
        value = LearnerCommand(publish_at=publish_at, command_id=name).SerializeToString()
        async with kafka.producer(self.bootstrap) as producer:
            await kafka.send(producer, self.topics.control, value, partition=0)

    async def route(self, table: RouteTable) -> None:
        """Write a route table as the rollout does."""
        async with kafka.producer(self.bootstrap) as producer:
            await kafka.send(producer, self.topics.routes, table.SerializeToString(), key=b"fraud", partition=0)

    async def _send(self, producer: Any, batch: Sequence[Outcome]) -> None:
        sent: list[Awaitable[Any]] = [
            await producer.send(
                self.topics.outcomes, outcome.SerializeToString(), key=outcome.prediction.event_id.encode()
            )
            for outcome in batch
        ]
        await asyncio.gather(*sent)

    async def create_topics(self) -> None:
        """Create the topics."""
        await create_topics(self.bootstrap, self.topics.deployed, PARTITIONS)

    async def close(self) -> None:
        """End the processes and delete the topics."""
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        async with kafka.KafkaAdmin(self.bootstrap) as admin:
            await admin.delete_topics(self.topics.data + self.topics.single)

    def outcomes(self, count: int, seed: int = 0) -> list[Outcome]:
        """Outcomes with features like those of card payments; every 50th is a correction, which is not learned."""
        return [self._outcome(f"{seed}-{number}", seed, number) for number in range(count)]

    def learnable(self, outcomes: Sequence[Outcome]) -> int:
        """How many of them are learned."""
        return sum(outcome.kind == OUTCOME_KIND_LABELLED for outcome in outcomes)

    def _outcome(self, event_id: str, seed: int, number: int) -> Outcome:
        chance = random.Random(f"{seed}-{number}")
        features = [chance.gauss(scale, scale / 2) for scale in SCALES]
        fraud = features[0] > 2 * SCALES[0] or chance.random() < 0.02
        return Outcome(
            prediction=Prediction(
                event_id=event_id,
                features=features,
                features_fingerprint=self.pipeline.features_fingerprint,
                score=0.5,
            ),
            label=Label(
                event_id=event_id,
                value=float(fraud),
                # Out of order, with ties.
                label_time_us=1_500_000_000_000_000 + (number + chance.randrange(-20, 20)) // 4,
            ),
            kind=OUTCOME_KIND_CORRECTED if number % 50 == 49 else OUTCOME_KIND_LABELLED,
        )
