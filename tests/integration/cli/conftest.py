"""A pipeline whose topics hold what its services would have written; none of them runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.platform.kafka import KafkaAdmin
from headrace.platform.topics import create_topics
from tests.integration.cli.written_pipeline import WrittenPipeline


@pytest.fixture
async def written(kafka_bootstrap: str, namespace: str, tmp_path: Path) -> AsyncIterator[WrittenPipeline]:
    """Topics, keys and artifacts of a pipeline of the test's own."""
    made = WrittenPipeline(kafka_bootstrap, namespace, tmp_path)
    await create_topics(kafka_bootstrap, made.topics.deployed, 2)
    yield made
    async with KafkaAdmin(kafka_bootstrap) as admin:
        await admin.delete_topics(made.topics.all)
