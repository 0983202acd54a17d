"""A deployed pipeline of a test's own: a model in Triton, a route table, vectors, and gateway processes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import numpy as np
import onnx
import tritonclient.grpc.aio as triton_grpc
from onnx import TensorProto, helper, numpy_helper
from redis.asyncio import Redis

from headrace.gateway.requests import now_us
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.event_codec import CheckedEvent, pack_event
from headrace.platform.kafka import KafkaAdmin, TopicPartition, consumer, producer, send
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis import connect
from headrace.platform.signing import Signer, create_key_pair
from headrace.platform.topics import Topics, create_topics, deployed_name
from headrace.platform.triton_config import MODEL_FILE, triton_model_config
from headrace.v1.event_pb2 import Event, SourcePosition
from headrace.v1.model_pb2 import Artifact, ModelVersion, RoutedVersion, RouteTable
from headrace.v1.prediction_pb2 import Prediction
from headrace.v1.prediction_service_pb2_grpc import FeatureServiceStub, PredictionServiceStub
from headrace.v1.vector_pb2 import FeatureVector

pipeline = load_pipeline("pipelines/fraud.py")
WIDTH = len(pipeline.feature_names)
START_US = 1_600_000_000_000_000
AMOUNT_WEIGHT = 0.01
COMMAND = ("headrace.cli", "run", "gateway")


async def eventually(
    condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = 30.0, every_s: float = 0.05
) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        await asyncio.sleep(every_s)


def event(event_id: str, *, customer: str = "c1", terminal: str = "t1", cents: int = 1000, at: int = 0) -> Event:
    """A payment by names."""
    made = Event(event_id=event_id, event_time_us=START_US + at)
    made.fields.update({"customer_id": customer, "terminal_id": terminal, "amount_cents": cents})
    return made


def checked(event_id: str, customer: str = "c1", cents: int = 1000) -> CheckedEvent:
    """The same in packed order."""
    return CheckedEvent(event_id, START_US, [customer, "t1"], [float(cents)], answered=False)


def score_of(cents: int, intercept: float) -> float:
    """What a model of `model_file` answers to an amount."""
    return float(1 / (1 + np.exp(-(AMOUNT_WEIGHT * cents / 100 + intercept))))


def model_file(intercept: float) -> bytes:
    """An ONNX model that looks at the amount alone (feature 0)."""
    weights = np.zeros((WIDTH, 1), np.float32)
    weights[0] = AMOUNT_WEIGHT
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["product"]),
            helper.make_node("Add", ["product", "intercept"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["score"]),
        ],
        "amount",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([intercept], np.float32), "intercept"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = model.SerializeToString()
    onnx.checker.check_model(model)
    return content


class GatewayProcess:
    """`headrace run gateway` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, ops_port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.ops_port = ops_port
        self.log = log
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.predictions: Any = PredictionServiceStub(self.channel)
        self.features: Any = FeatureServiceStub(self.channel)

    async def readiness(self) -> dict[str, Any]:
        """Body of `/readyz`; not ready before it listens."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.ops_port}/readyz") as answer,
            ):
                body: dict[str, Any] = await answer.json()
                return body
        except aiohttp.ClientError:
            return {"ready": False}

    async def metrics_text(self) -> str:
        """Body of `/metrics`."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.ops_port}/metrics") as answer,
        ):
            return await answer.text()

    async def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        text = await self.metrics_text()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    async def ready(self, timeout_s: float = 40.0) -> None:
        async def is_ready() -> bool:
            assert self.process.returncode is None, f"the gateway ended: {self.log.read_text()[-3000:]}"
            return bool((await self.readiness())["ready"])

        await eventually(is_ready, f"gateway ready (log: {self.log.read_text()[-2000:]})", timeout_s)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()
        await self.channel.close()

    async def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        status = await self.process.wait()
        await self.channel.close()
        return status


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Deployment:
    """One deployed pipeline."""

    topics: Topics
    store: ArtifactStore
    signer: Signer
    writer: Any
    triton: Any
    bootstrap: str
    redis: Redis
    environment: dict[str, str]
    directory: Path
    epoch: int = 0
    loaded: list[str] = field(default_factory=list)
    processes: list[GatewayProcess] = field(default_factory=list)
    vector_offsets: Counter[int] = field(default_factory=Counter)

    async def start(
        self, *, wait_ready: bool = True, command: Sequence[str] = COMMAND, **settings: object
    ) -> GatewayProcess:
        """Start a gateway, or another module; settings are given as environment variables, `GATEWAY_INSTANCE="1"`."""
        port, ops_port = free_port(), free_port()
        own = {f"HEADRACE_{name}": str(value) for name, value in settings.items()}
        ports = {"HEADRACE_GATEWAY_GRPC_PORT": str(port), "HEADRACE_GATEWAY_OPS_PORT": str(ops_port)}
        log = self.directory / f"gateway-{len(self.processes)}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *command,
                env=os.environ | self.environment | ports | own,
                stdout=output,
                stderr=output,
            )
        started = GatewayProcess(process, port, ops_port, log)
        self.processes.append(started)
        if wait_ready:
            await started.ready()
        return started

    async def route(
        self,
        version: str,
        intercept: float = 0.0,
        *,
        untrained: bool = False,
        load: bool = True,
        previous: Sequence[RoutedVersion] = (),
        fingerprint: int = 0,
    ) -> RoutedVersion:
        """Make a version the champion: artifact, Triton, route table."""
        routed = await self.load(version, intercept, untrained=untrained, load=load, fingerprint=fingerprint)
        await self.publish(routed, previous)
        return routed

    async def load(
        self,
        version: str,
        intercept: float = 0.0,
        *,
        untrained: bool = False,
        load: bool = True,
        fingerprint: int = 0,
        share: float = 0.0,
    ) -> RoutedVersion:
        """A version as a route table may name it: artifact and Triton."""
        content = model_file(intercept)
        reference = await asyncio.to_thread(self.store.put, f"{self.topics.deployed}/{version}.onnx", content)
        digest = bytes.fromhex(reference.sha256)
        name = f"{self.topics.deployed}-{version}"
        if load:
            await self.triton.load_model(name, config=triton_model_config(name, WIDTH), files={MODEL_FILE: content})
            self.loaded.append(name)
        model = ModelVersion(
            pipeline=self.topics.deployed,
            version=version,
            features_fingerprint=fingerprint or pipeline.features_fingerprint,
            onnx=Artifact(
                uri=reference.uri, sha256=digest, size_bytes=reference.size, signature=self.signer.sign(digest)
            ),
            untrained=untrained,
            model_time_us=0 if untrained else START_US,
            feature_names=pipeline.feature_names,
        )
        return RoutedVersion(model=model, triton_model=name, share=share)

    async def publish(
        self,
        routed: RoutedVersion,
        previous: Sequence[RoutedVersion] = (),
        *,
        canary: RoutedVersion | None = None,
        shadows: Sequence[RoutedVersion] = (),
    ) -> None:
        """Write a route table."""
        self.epoch += 1
        table = RouteTable(
            pipeline=self.topics.deployed,
            epoch=self.epoch,
            champion=routed,
            canary=canary,
            shadows=shadows,
            previous=previous,
        )
        await send(self.writer, self.topics.routes, table.SerializeToString(), key=self.topics.deployed.encode())

    async def in_use(self, gateway: GatewayProcess, epoch: int) -> None:
        """Wait until a gateway uses a route table."""

        async def used() -> bool:
            return await gateway.metric("headrace_gateway_route_epoch") == epoch

        await eventually(used, f"epoch {epoch} in use")

    async def send_vectors(
        self,
        event_ids: Sequence[str],
        *,
        partition: int = 0,
        cents: int = 1000,
        fingerprint: int = 0,
        again_from: int | None = None,
    ) -> None:
        """Vectors as the stream processor writes them.

        Args:
            event_ids: of the events.
            partition: of `events` and `vectors`.
            cents: amount of each.
            fingerprint: other than the pipeline's.
            again_from: source offset of the first one, for what is sent again.
        """
        first = self.vector_offsets[partition] if again_from is None else again_from
        sent = []
        for offset, event_id in enumerate(event_ids, first):
            values = [0.0] * WIDTH
            values[0] = cents / 100
            vector = FeatureVector(
                event_id=event_id,
                event_time_us=START_US + offset,
                features_fingerprint=fingerprint or pipeline.features_fingerprint,
                values=values,
                entities=["c1", "t1"],
                source=SourcePosition(topic=self.topics.events, partition=partition, offset=offset),
                event_positions=[offset],
                outcome_positions=[-1],
                features_time_us=now_us(),
                produced_time_us=now_us(),
            )
            sent.append(
                await self.writer.send(self.topics.vectors, vector.SerializeToString(), key=b"c1", partition=partition)
            )
        await asyncio.gather(*sent)
        if again_from is None:
            self.vector_offsets[partition] += len(event_ids)

    async def records(self, topic: str, partitions: int = 4) -> list[Any]:
        """All committed records of a topic, from the beginning to the present end."""
        places = [TopicPartition(topic, number) for number in range(partitions)]
        found: list[Any] = []
        async with consumer(self.bootstrap, partitions=places) as reader:
            ends = await reader.end_offsets(places)
            deadline = time.monotonic() + 20
            while [True for place, end in ends.items() if await reader.position(place) < end]:
                assert time.monotonic() < deadline, f"{topic} cannot be read to its end: a transaction hangs"
                for of_partition in (await reader.getmany(timeout_ms=200)).values():
                    found += of_partition
        return found

    async def predictions(self) -> list[Prediction]:
        """All committed predictions."""
        return [Prediction.FromString(record.value) for record in await self.records(self.topics.predictions)]

    async def predicted(self, count: int, timeout_s: float = 30.0) -> list[Prediction]:
        """Wait for a number of committed predictions."""
        found: list[Prediction] = []

        async def enough() -> bool:
            found[:] = await self.predictions()
            return len(found) >= count

        await eventually(enough, f"{count} predictions", timeout_s, every_s=0.2)
        return found

    def packed(self, one: CheckedEvent) -> bytes:
        """The event as it goes to `events` with `ingest`."""
        answered = CheckedEvent(one.event_id, one.time_us, one.texts, one.numbers, answered=True)
        return pack_event(pipeline, answered).SerializeToString()


@asynccontextmanager
async def deploy(
    kafka_bootstrap: str, redis_url: str, triton_url: str, namespace: str, tmp_path: Path
) -> AsyncIterator[Deployment]:
    """A deployed pipeline while the block runs."""
    deployed = deployed_name("fraud", namespace)
    await create_topics(kafka_bootstrap, deployed)
    keys = create_key_pair(tmp_path / "keys")
    environment = {
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "HEADRACE_REDIS_URL": redis_url,
        "HEADRACE_TRITON_URLS": triton_url,
        "HEADRACE_ARTIFACTS": str(tmp_path / "artifacts"),
        "HEADRACE_STATE_DIR": str(tmp_path / "state"),
        # A machine that runs many tests at once may be slow; whether Redis is away is a test of its own.
        "HEADRACE_GATEWAY_REDIS_TIMEOUT_MS": "3000",
        "HEADRACE_GATEWAY_TRITON_TIMEOUT_MS": "5000",
        # So is whether too much is asked for.
        "HEADRACE_GATEWAY_QUEUE_TARGET_MS": "5000",
        "HEADRACE_GATEWAY_QUEUE_INTERVAL_MS": "5000",
        "HEADRACE_SIGNING_PUBLIC_KEY": str(keys.public),
    }
    client = connect(redis_url)
    triton = triton_grpc.InferenceServerClient(triton_url)
    async with producer(kafka_bootstrap) as writer:
        made = Deployment(
            Topics(deployed),
            ArtifactStore(tmp_path / "artifacts"),
            Signer.read(keys.private),
            writer,
            triton,
            kafka_bootstrap,
            client,
            environment,
            tmp_path,
        )
        yield made
    for process in made.processes:
        if process.process.returncode is None:
            await process.kill()
    for name in made.loaded:
        await triton.unload_model(name)
    await triton.close()
    keys_left = [key async for key in client.scan_iter(f"headrace:{{{deployed}}}:*", count=1000)]
    if keys_left:
        await client.delete(*keys_left)
    await client.aclose()
    async with KafkaAdmin(kafka_bootstrap) as admin:
        await admin.delete_topics(made.topics.all)
