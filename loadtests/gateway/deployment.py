"""A deployed fraud pipeline on a benchmark's own servers: filled feature state, a routed model, gateway processes."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import grpc.aio
import numpy as np
import tritonclient.grpc.aio as triton_grpc

from headrace.onnx_export import export
from headrace.pipeline.state import FeaturePlan, compile_plan
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.kafka import producer, send
from headrace.platform.pipelines import load_pipeline
from headrace.platform.signing import KeyPair, Signer, create_key_pair
from headrace.platform.topics import Topics, create_topics, deployed_name
from headrace.platform.triton_config import MODEL_FILE, triton_model_config
from headrace.v1.model_pb2 import Artifact, ModelVersion, RoutedVersion, RouteTable
from headrace.v1.prediction_service_pb2 import PredictResponse
from headrace.v1.prediction_service_pb2_grpc import PredictionServiceStub
from loadtests.features.deployment import KEPT_DAYS, PARTITIONS, PIPELINE
from loadtests.features.engine import engine
from loadtests.features.payments import Records, payments
from loadtests.figures import Figure, figure
from loadtests.gateway.arguments import Options, Profile
from loadtests.gateway.requests import Requests
from loadtests.processes import Process, ProcessFailed, running
from loadtests.servers import BENCH, Servers, free_ports, servers

NAMESPACE = "bench"
VERSION = "00000001"
EPOCH = 1
LEARNED = 2000
READY_S = 180.0
POLL_S = 0.1
DEGRADED = "headrace_gateway_degraded_answers"
PROFILES = BENCH / "profiles"


@dataclass
class Gateway(Process):
    """A gateway that runs.

    Attributes:
        port: of gRPC.
        ops_port: where it answers /readyz.
    """

    port: int
    ops_port: int

    @property
    def address(self) -> str:
        """Of gRPC, host:port."""
        return f"127.0.0.1:{self.port}"

    def degraded(self) -> float:
        """How many answers it has given that something was missing for, as its metrics have it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ops_port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return sum(map(float, re.findall(rf"^{DEGRADED}_total(?:{{.*}})? (\S+)$", text, re.MULTILINE)))

    async def ready(self) -> None:
        """Wait until it takes requests.

        Raises:
            ProcessFailed: it has ended, or does not become ready; with what it waits for.
        """
        said: object = None
        try:
            async with asyncio.timeout(READY_S):
                while not (said := await asyncio.to_thread(_readiness, self.ops_port)).get("ready"):
                    self.check()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise ProcessFailed(f"{self.name} is not ready: {said}\n{self.text()}") from None


@dataclass(frozen=True)
class Deployment:
    """A deployed pipeline.

    Attributes:
        servers: where it runs.
        keys: that models are signed and verified with.
        cores: that everything may run on.
        profile: how gateways are profiled.
        processes: of which a gateway is made.
        made: the payments that are in the feature state.
        requests: makes requests that nobody has sent before.
    """

    servers: Servers
    keys: KeyPair
    cores: frozenset[int]
    profile: Profile | None
    processes: int
    plan: FeaturePlan
    made: Records
    requests: Requests
    onnx: bytes = field(repr=False)

    @property
    def deployed(self) -> str:
        """Its name."""
        return deployed_name(self.plan.pipeline.name, NAMESPACE)

    @property
    def topics(self) -> Topics:
        """Its topics."""
        return Topics(self.deployed)

    @property
    def triton_model(self) -> str:
        """What the version is called in Triton."""
        return f"{self.deployed}-{VERSION}"

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.plan.pipeline.feature_names)

    async def create(self) -> None:
        """Topics, state, model, route."""
        await create_topics(self.servers.bootstrap, self.deployed, PARTITIONS, event_days=KEPT_DAYS)
        async with engine(self.servers.redis_url, self.plan, self.deployed) as one:
            await one.merge_outcomes([value for _, value in self.made.outcomes])
            for batch in one.batches(self.made.events):
                await one.handle(batch)
        await self._route()

    async def _route(self) -> None:
        """Push the model, store it where the gateway finds it, and make it the champion."""
        store = ArtifactStore(self.servers.directory / "artifacts")
        reference = store.put(f"{self.deployed}/{VERSION}.onnx", self.onnx)
        triton = triton_grpc.InferenceServerClient(self.servers.triton_url)
        try:
            config = triton_model_config(self.triton_model, self.width)
            await triton.load_model(self.triton_model, config=config, files={MODEL_FILE: self.onnx})
        finally:
            await triton.close()
        digest, last = bytes.fromhex(reference.sha256), int(self.made.times_us[-1])
        model = ModelVersion(
            pipeline=self.deployed,
            version=VERSION,
            features_fingerprint=self.plan.pipeline.features_fingerprint,
            onnx=Artifact(
                uri=reference.uri,
                sha256=digest,
                size_bytes=reference.size,
                signature=Signer.read(self.keys.private).sign(digest),
            ),
            model_time_us=last,
            feature_names=self.plan.pipeline.feature_names,
        )
        champion = RoutedVersion(model=model, triton_model=self.triton_model)
        table = RouteTable(pipeline=self.deployed, epoch=EPOCH, champion=champion)
        async with producer(self.servers.bootstrap) as writer:
            await send(writer, self.topics.routes, table.SerializeToString(), key=self.deployed.encode())

    @contextmanager
    def gateway(
        self, name: str, settings: Mapping[str, object] | None = None, *, instance: int = 0
    ) -> Iterator[Gateway]:
        """A gateway while the block runs, of so many processes as the options say.

        Args:
            name: of its log and of its profile.
            settings: environment variables beside those that every gateway here has.
            instance: tells gateways that run at the same time apart; each has its own spool.
        """
        port, ops_port = free_ports(2)
        environment = {
            "HEADRACE_PIPELINE": PIPELINE,
            "HEADRACE_NAMESPACE": NAMESPACE,
            "HEADRACE_KAFKA_BOOTSTRAP": self.servers.bootstrap,
            "HEADRACE_REDIS_URL": self.servers.redis_url,
            "HEADRACE_TRITON_URLS": self.servers.triton_url,
            "HEADRACE_ARTIFACTS": str(self.servers.directory / "artifacts"),
            "HEADRACE_STATE_DIR": str(self.servers.directory / "state"),
            "HEADRACE_SIGNING_PUBLIC_KEY": str(self.keys.public),
            "HEADRACE_LOG_LEVEL": "warning",
            "HEADRACE_GATEWAY_INSTANCE": str(instance),
            "HEADRACE_GATEWAY_PROCESSES": str(self.processes),
            "HEADRACE_GATEWAY_GRPC_PORT": str(port),
            "HEADRACE_GATEWAY_OPS_PORT": str(ops_port),
            **{key: str(value) for key, value in (settings or {}).items()},
        }
        command = [sys.executable, "-m", "headrace.cli", "run", "gateway"]
        if self.profile is not None:
            PROFILES.mkdir(parents=True, exist_ok=True)
            wrapped = ["loadtests.gateway.profiled", self.profile, str(PROFILES / name), *command[3:]]
            command[2:] = wrapped
        directory = self.servers.directory
        with running(name, command, cores=self.cores, directory=directory, environment=environment) as process:
            yield Gateway(process.name, process.popen, process.log, port, ops_port)

    @asynccontextmanager
    async def serving(
        self, name: str, settings: Mapping[str, object] | None = None, *, instance: int = 0
    ) -> AsyncIterator[Gateway]:
        """The same, ready.

        Raises:
            ProcessFailed: it does not become ready.
        """
        with self.gateway(name, settings, instance=instance) as gateway:
            await gateway.ready()
            yield gateway
            gateway.check()

    async def check(self, gateway: Gateway) -> PredictResponse:
        """One call with everything behind it.

        Raises:
            ProcessFailed: the answer is degraded, or no champion's.
        """
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            stub = PredictionServiceStub(channel)
            answer: PredictResponse = await stub.Predict(self.requests.packed(1)[0], timeout=READY_S)
        if answer.degradations or answer.model_version != VERSION or answer.features_age_ms < 0:
            raise ProcessFailed(f"{gateway.name} does not answer from features and model: {answer}")
        return answer


def complete(name: str, wrong: float, calls: float) -> Figure:
    """The share of calls without a full answer: a rate with such calls is not the full path's.

    Args:
        name: of what was measured.
        wrong: how many failed, or had an answer that something was missing for.
        calls: of how many.
    """
    return figure(f"{name}: share failed or degraded", wrong / calls, "", better="lower", most=0.0)


@contextmanager
def deployment(options: Options, cores: frozenset[int]) -> Iterator[Deployment]:
    """A pipeline on servers of its own, yet to be created, while the block runs.

    Args:
        options: of the run.
        cores: that everything may run on.
    """
    plan = compile_plan(load_pipeline(PIPELINE))
    made = Records(plan.pipeline, payments(options.events))
    with servers(cores, triton=True) as kept:
        yield Deployment(
            kept,
            create_key_pair(kept.directory / "keys"),
            cores,
            options.profile,
            options.processes,
            plan,
            made,
            Requests(plan.pipeline, made, deployed_name(plan.pipeline.name, NAMESPACE)),
            learned_model(plan),
        )


def learned_model(plan: FeaturePlan) -> bytes:
    """The pipeline's model, scaler and logistic regression, after rows of noise, as an ONNX file."""
    names = list(plan.pipeline.feature_names)
    model = plan.pipeline.model.build()
    random = np.random.default_rng(0)
    rows = random.gamma(2.0, 10.0, (LEARNED, len(names)))
    for row in rows.tolist():
        model.learn_one(dict(zip(names, row, strict=True)), row[0] + random.normal(0, 10) > 50)
    return export(model, names)


def _readiness(port: int) -> dict[str, object]:
    """What /readyz says; not ready before it listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            said: dict[str, object] = json.load(answer)
    except urllib.error.HTTPError as error:
        said = json.load(error)
    except OSError:
        return {"ready": False}
    return said
