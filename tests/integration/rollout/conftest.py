"""A deployed pipeline for each test, with topics, artifacts and keys of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from headrace.platform.artifacts import ArtifactStore
from headrace.platform.kafka import KafkaAdmin, producer
from headrace.platform.leases import Leases
from headrace.platform.redis import connect
from headrace.platform.signing import Signer, create_key_pair
from headrace.platform.topics import create_topics, deployed_name
from headrace.rollout.triton import TritonServer
from tests.integration.private_triton import PrivateTriton
from tests.integration.rollout.deployment import Deployment


@pytest.fixture
async def triton(triton_url: str) -> AsyncIterator[TritonServer]:
    """The stack's Triton, to look at."""
    server = TritonServer(triton_url)
    yield server
    await server.close()


@pytest.fixture
async def deployment(
    kafka_bootstrap: str, redis_url: str, triton_url: str, triton: TritonServer, namespace: str, tmp_path: Path
) -> AsyncIterator[Deployment]:
    deployed = deployed_name("fraud", namespace)
    await create_topics(kafka_bootstrap, deployed, 1)
    keys = create_key_pair(tmp_path / "keys")
    settings = {
        "namespace": namespace,
        "kafka_bootstrap": kafka_bootstrap,
        "redis_url": redis_url,
        "triton_urls": (triton_url,),
        "artifacts": tmp_path / "artifacts",
        "state_dir": tmp_path / "state",
        "signing_public_key": keys.public,
        "ops_port": 0,
        "mlflow_uri": "off",
    }
    redis = connect(redis_url)
    async with producer(kafka_bootstrap) as writer:
        made = Deployment(
            deployed,
            ArtifactStore(tmp_path / "artifacts"),
            Signer.read(keys.private),
            writer,
            Leases(redis, deployed),
            settings,
        )
        following = asyncio.create_task(made.follow(kafka_bootstrap))
        yield made
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
    for instance in await made.leases.read():
        await made.leases.release(instance.instance)
    await redis.aclose()
    for version in await made.loaded(triton):
        await triton.unload(f"{deployed}-{version}")
    async with KafkaAdmin(kafka_bootstrap) as admin:
        await admin.delete_topics(made.topics.all)


@pytest.fixture
def private_triton(tmp_path: Path) -> Iterator[PrivateTriton]:
    """A Triton that is not started yet, and killed in the end."""
    server = PrivateTriton(tmp_path / "triton")
    yield server
    server.kill()
