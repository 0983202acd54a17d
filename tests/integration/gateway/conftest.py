"""A deployed pipeline for each test, with topics, artifacts and keys of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import tritonclient.grpc.aio as triton_grpc

from headrace.platform.artifacts import ArtifactStore
from headrace.platform.kafka import KafkaAdmin, producer
from headrace.platform.redis import connect
from headrace.platform.signing import Signer, create_key_pair
from headrace.platform.topics import Topics, create_topics, deployed_name
from tests.integration.gateway.deployment import Deployment


@pytest.fixture
async def deployment(
    kafka_bootstrap: str, redis_url: str, triton_url: str, namespace: str, tmp_path: Path
) -> AsyncIterator[Deployment]:
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
