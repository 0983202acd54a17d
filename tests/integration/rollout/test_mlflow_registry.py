"""Champions in MLflow, on a SQLite file as without a server."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from headrace.platform.artifacts import ArtifactStore
from headrace.rollout.mlflow_registry import ALIAS, Champion, MlflowRegistry
from headrace.v1 import model_pb2
from tests.integration.rollout.deployment import Deployment, eventually, running

pytestmark = pytest.mark.timeout(180)


def champion(store: ArtifactStore, number: int) -> Champion:
    version = f"{number:06d}"
    content = b"model %d" % number
    stored = store.put(f"fraud/models/{version}/model.onnx", content)
    model = model_pb2.ModelVersion(
        pipeline="fraud",
        version=version,
        parent=f"{number - 1:06d}",
        features_fingerprint=0xABC,
        recipe_fingerprint="ab" * 32,
        onnx=model_pb2.Artifact(uri=stored.uri, sha256=hashlib.sha256(content).digest(), size_bytes=stored.size),
        learned=[model_pb2.OffsetRange(partition=0, first=0, end=10)],
        metrics={"log_loss": 0.25},
    )
    return Champion(model, f"fraud-{version}", number)


def test_a_version_is_registered_once_with_alias_tags_and_files(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    store = ArtifactStore(tmp_path / "artifacts")
    uri = f"sqlite:///{tmp_path / 'state' / 'mlflow.db'}"
    registry = MlflowRegistry(uri, tmp_path / "state" / "mlflow", store, "fraud")
    registry.register(champion(store, 1))
    registry.register(champion(store, 2))
    # After a restart.
    MlflowRegistry(uri, tmp_path / "state" / "mlflow", store, "fraud").register(champion(store, 2))

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    assert len(client.search_model_versions("name = 'fraud'")) == 2
    found = client.get_model_version_by_alias("fraud", ALIAS)
    assert found.run_id
    assert found.tags["headrace.version"] == "000002"
    assert found.tags["headrace.features_fingerprint"] == "0000000000000abc"
    assert found.tags["headrace.onnx_sha256"] == hashlib.sha256(b"model 2").hexdigest()
    files = Path(client.download_artifacts(found.run_id, "model", str(tmp_path)))
    assert (files / "model.onnx").read_bytes() == b"model 2"
    lineage = json.loads((files / "lineage.json").read_text())
    assert (lineage["parent"], lineage["learned"]) == ("000001", [{"partition": 0, "first": 0, "end": 10}])
    assert client.get_run(found.run_id).data.metrics == {"log_loss": 0.25}


async def test_the_rollout_registers_its_first_champion(deployment: Deployment) -> None:
    from mlflow.tracking import MlflowClient

    deployed = deployment.topics.deployed
    uri = f"sqlite:///{deployment.settings['state_dir'] / 'mlflow.db'}"
    before = REGISTRY.get_sample_value("headrace_rollout_registered_versions_total") or 0
    async with running(deployment, mlflow_uri=uri, mlflow_interval_s=3600):
        for number in range(3):
            await deployment.announce(deployment.version(number))
            await deployment.routed(f"{number:06d}")

        async def registered() -> bool:
            return REGISTRY.get_sample_value("headrace_rollout_registered_versions_total") == before + 1

        await eventually(registered, "the first champion is registered", 90)
    versions = MlflowClient(tracking_uri=uri, registry_uri=uri).search_model_versions(f"name = '{deployed}'")
    assert [one.tags["headrace.version"] for one in versions] == ["000000"]


async def test_a_registry_that_fails_holds_nothing_up(deployment: Deployment) -> None:
    # A port where nobody listens; what MLflow waits for it is not waited for here.
    async with running(deployment, mlflow_uri="http://127.0.0.1:1", mlflow_interval_s=0):
        began = time.monotonic()
        for number in range(3):
            await deployment.announce(deployment.version(number))
            await deployment.routed(f"{number:06d}")
        assert time.monotonic() - began < 30
