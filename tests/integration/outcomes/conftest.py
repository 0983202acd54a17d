"""A deployed pipeline for each test, with topics and stores of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.platform import kafka
from headrace.platform.topics import Topics, create_topics, deployed_name
from tests.integration.outcomes.deployment import PARTITIONS, Deployment


@pytest.fixture
async def deployment(kafka_bootstrap: str, namespace: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    """A deployment that no one else uses, its topics created, no process started."""
    topics = Topics(deployed_name("joined", namespace))
    await create_topics(kafka_bootstrap, topics.deployed, PARTITIONS)
    async with kafka.producer(kafka_bootstrap) as producer:
        made = Deployment(kafka_bootstrap, namespace, topics, tmp_path, producer)
        yield made
        await made.close()
