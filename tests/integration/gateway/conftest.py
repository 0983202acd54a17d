"""A deployed pipeline for each test, with topics, artifacts and keys of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.gateway.deployment import Deployment, deploy


@pytest.fixture
async def deployment(
    kafka_bootstrap: str, redis_url: str, triton_url: str, namespace: str, tmp_path: Path
) -> AsyncIterator[Deployment]:
    async with deploy(kafka_bootstrap, redis_url, triton_url, namespace, tmp_path) as made:
        yield made
