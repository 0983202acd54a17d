"""Time of a rollback, and of a push to each Triton: `python -m loadtests.learning.rollbacks`.

A rollout process, two Tritons of its own, and a gateway as the rollout sees it: it follows `routes` and renews its
lease in Redis. Each rollback goes to the champion before, which stays loaded; then the other is put back by name. The
control is a command that changes nothing, given in turn with them: what Kafka and the command itself take.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from google.protobuf.message import Message

from deploy.local import Stack
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.kafka import KafkaAdmin, producer
from headrace.platform.leases import Leases
from headrace.platform.redis import connect
from headrace.platform.signing import Signer, create_key_pair
from headrace.platform.topics import create_topics, deployed_name
from headrace.rollout.operating import give, new_command
from headrace.rollout.triton import TritonError, TritonServer
from headrace.v1 import route_pb2
from tests.integration.private_triton import PrivateTriton
from tests.integration.rollout.deployment import Deployment, eventually
from tests.integration.rollout.test_operator_commands import gateway
from tests.integration.rollout.test_restarts import process

ROLLBACKS = 40
PUSHES = 12


async def main() -> None:
    """Measure and print."""
    stack = Stack()
    started = stack.start_infrastructure()
    try:
        with tempfile.TemporaryDirectory() as directory:
            await _measure(stack, Path(directory))
    finally:
        if started:
            stack.stop()


async def _measure(stack: Stack, directory: Path) -> None:
    tritons = [PrivateTriton(directory / name) for name in ("first", "second")]
    try:
        for one in tritons:
            one.start()
        async with _deployed(stack, directory) as deployment, gateway(deployment):
            urls = tuple(one.url for one in tritons)
            async with process(deployment, triton_urls=urls):
                pushes = await _pushes(deployment, [TritonServer(url) for url in urls])
                rollbacks, controls = await _rollbacks(deployment)
    finally:
        for one in tritons:
            one.kill()
    _print("announcement to each Triton having it", pushes)
    _print("rollback, until the gateway uses it", rollbacks)
    _print("control: a command that changes nothing", controls)


async def _pushes(deployment: Deployment, servers: list[TritonServer]) -> list[float]:
    took = []
    for number in range(PUSHES):
        name = f"{number:06d}"
        await deployment.announce(deployment.version(number))
        began = time.monotonic()

        async def has(server: TritonServer, version: str = name, since: float = began) -> float:
            async def there() -> bool:
                try:
                    return version in await deployment.loaded(server)
                except TritonError:
                    return False

            await eventually(there, f"{version} at {server.url}", 90)
            return time.monotonic() - since

        took += await asyncio.gather(*map(has, servers))
        await deployment.routed(name, adopted=True, seconds=90)
    for server in servers:
        await server.close()
    return took[len(servers) :]


async def _rollbacks(deployment: Deployment) -> tuple[list[float], list[float]]:
    took, controls = [], []
    newest = f"{PUSHES - 1:06d}"
    for _ in range(ROLLBACKS):
        took.append(await _give(deployment, rollback=route_pb2.Rollback()))
        controls.append(await _give(deployment, freeze=route_pb2.FreezeRefreshes()))
        await _give(deployment, set=route_pb2.SetRoutes(pin=newest))
    return took, controls


async def _give(deployment: Deployment, **action: Message) -> float:
    command = new_command("bench", timeout_s=90)
    for name, value in action.items():
        getattr(command, name).CopyFrom(value)
    bootstrap = deployment.settings["kafka_bootstrap"]
    return (await give(command, bootstrap, deployment.topics, deployment.leases, timeout_s=90)).seconds


@asynccontextmanager
async def _deployed(stack: Stack, directory: Path) -> AsyncIterator[Deployment]:
    namespace = f"bench-{uuid.uuid4().hex[:8]}"
    deployed, bootstrap = deployed_name("fraud", namespace), f"127.0.0.1:{stack.ports.kafka}"
    redis_url = f"redis://127.0.0.1:{stack.ports.redis}/0"
    await create_topics(bootstrap, deployed, 1)
    keys = create_key_pair(directory / "keys")
    settings = {
        "namespace": namespace,
        "kafka_bootstrap": bootstrap,
        "redis_url": redis_url,
        "artifacts": directory / "artifacts",
        "state_dir": directory / "state",
        "signing_public_key": keys.public,
        "ops_port": 0,
        "mlflow_uri": "off",
    }
    redis = connect(redis_url)
    store = ArtifactStore(directory / "artifacts")
    async with producer(bootstrap) as writer:
        made = Deployment(deployed, store, Signer.read(keys.private), writer, Leases(redis, deployed), settings)
        following = asyncio.create_task(made.follow(bootstrap))
        try:
            yield made
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await redis.aclose()
            async with KafkaAdmin(bootstrap) as admin:
                await admin.delete_topics(made.topics.all)


def _print(what: str, seconds: list[float]) -> None:
    p50, p99 = np.percentile(seconds, [50, 99])
    print(f"{what}: p50 {p50:.3f} s, p99 {p99:.3f} s, most {max(seconds):.3f} s, of {len(seconds)}")


if __name__ == "__main__":
    asyncio.run(main())
