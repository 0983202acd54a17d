"""A deployed pipeline for each test, with topics and state of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from headrace.pipeline.state import compile_plan
from headrace.platform.pipelines import load_pipeline
from headrace.platform.topics import Topics, deployed_name
from tests.integration.features.deployment import Deployment


@pytest.fixture
async def deployment(kafka_bootstrap: str, redis_url: str, namespace: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    """A deployment of the card-fraud pipeline that no one else uses."""
    plan = compile_plan(load_pipeline("pipelines/fraud.py"))
    async with Redis.from_url(redis_url) as client:
        made = Deployment(
            kafka_bootstrap,
            redis_url,
            namespace,
            Topics(deployed_name(plan.pipeline.name, namespace)),
            plan,
            tmp_path,
            client,
        )
        await made.create_topics()
        yield made
        await made.close()
