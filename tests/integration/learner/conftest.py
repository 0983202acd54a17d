"""A deployed pipeline for each test, with topics, artifacts and keys of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.platform.artifacts import ArtifactStore
from headrace.platform.pipelines import load_pipeline
from headrace.platform.signing import create_key_pair
from headrace.platform.topics import Topics, deployed_name
from tests.integration.learner.deployment import PIPELINE, Deployment


@pytest.fixture
async def deployment(kafka_bootstrap: str, namespace: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    """A deployment of the card-fraud pipeline that no one else uses."""
    pipeline = load_pipeline(PIPELINE)
    made = Deployment(
        kafka_bootstrap,
        Topics(deployed_name(pipeline.name, namespace)),
        namespace,
        pipeline,
        ArtifactStore(tmp_path / "artifacts"),
        create_key_pair(tmp_path / "keys"),
        tmp_path,
    )
    await made.create_topics()
    yield made
    await made.close()
