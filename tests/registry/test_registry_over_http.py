"""The registry against a real MLflow server over HTTP, also one that hangs, dies and comes back: `make test-mlflow`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from headrace.platform.artifacts import ArtifactStore
from headrace.rollout.mlflow_registry import MlflowRegistry
from headrace.rollout.registrar import CHALLENGER, CHAMPION
from tests.integration.conftest import kafka_bootstrap, namespace, redis_url, triton_url
from tests.integration.rollout.conftest import deployment, triton
from tests.integration.rollout.deployment import Deployment, eventually, running
from tests.integration.rollout.test_mlflow_registry import candidate
from tests.registry.mlflow_server import MlflowServer
from tests.shared_stack import stack

__all__ = ["deployment", "kafka_bootstrap", "namespace", "redis_url", "stack", "triton", "triton_url"]
pytestmark = pytest.mark.timeout(900)

PATIENCE_S = 180.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    started = MlflowServer(tmp_path_factory.mktemp("mlflow") / "server")
    try:
        started.start()
        yield started
    finally:
        started.kill()


def client(server: MlflowServer) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=server.url, registry_uri=server.url)


def registered(server: MlflowServer, pipeline: str) -> dict[str, Any]:
    """Entries of a pipeline by Headrace's version."""
    found = client(server).search_model_versions(f"name = '{pipeline}'")
    by_version = {one.tags["headrace.version"]: one for one in found}
    assert len(by_version) == len(found), "a version is registered twice"
    return by_version


def test_versions_are_registered_with_aliases_and_files_and_leave_again(server: MlflowServer, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    registry = MlflowRegistry(server.url, tmp_path / "unused", store, "fraud", keep=2)
    for number in range(5):
        registry.register(candidate(store, number, CHALLENGER if number == 1 else CHAMPION))
    # After a restart.
    MlflowRegistry(server.url, tmp_path / "unused", store, "fraud", keep=2).register(candidate(store, 4))
    entries = registered(server, "fraud")
    assert set(entries) == {f"{number:06d}" for number in range(5)}
    found = client(server).get_model_version_by_alias("fraud", CHAMPION)
    assert found.tags["headrace.version"] == "000004"
    files = Path(client(server).download_artifacts(found.run_id, "model", str(tmp_path)))
    assert (files / "model.onnx").read_bytes() == b"model 4"
    assert json.loads((files / "lineage.json").read_text())["parent"] == "000003"
    assert client(server).get_run(found.run_id).data.metrics == {"log_loss": 0.25}
    # The files are the server's: nothing is written here.
    assert not (tmp_path / "unused").exists()

    registry.retain({"000002"}, {CHAMPION, CHALLENGER})
    assert set(registered(server, "fraud")) == {"000001", "000002", "000003", "000004"}
    registry.retain(set(), {CHAMPION})
    entries = registered(server, "fraud")
    assert set(entries) == {"000003", "000004"}
    assert set(client(server).get_registered_model("fraud").aliases) == {CHAMPION}
    experiment = client(server).get_experiment_by_name("fraud").experiment_id
    runs = {one.run_id for one in entries.values()}
    assert {one.info.run_id for one in client(server).search_runs([experiment])} == runs
    assert server.files == runs


@pytest.mark.parametrize("fault", ["killed", "hangs"])
async def test_versions_take_traffic_while_the_server_is_away_and_are_registered_when_it_is_back(
    deployment: Deployment, server: MlflowServer, fault: str
) -> None:
    deployed = deployment.topics.deployed
    longest = 0.0

    async def into_traffic(numbers: range) -> None:
        nonlocal longest
        for number in numbers:
            began = time.monotonic()
            await deployment.announce(deployment.version(number))
            await deployment.routed(f"{number:06d}", seconds=60)
            longest = max(longest, time.monotonic() - began)

    async def has(version: str) -> None:
        async def there() -> bool:
            return version in await asyncio.to_thread(registered, server, deployed)

        await eventually(there, f"version {version} is registered", PATIENCE_S)

    async def failed() -> bool:
        return (REGISTRY.get_sample_value("headrace_rollout_registry_failures_total") or 0) > failures

    async with running(deployment, mlflow_uri=server.url, mlflow_interval_s=0):
        await into_traffic(range(2))
        await has("000001")
        failures = REGISTRY.get_sample_value("headrace_rollout_registry_failures_total") or 0
        # With one under way.
        await deployment.announce(deployment.version(2))
        if fault == "killed":
            server.kill()
        else:
            server.freeze()
        try:
            await deployment.routed("000002", seconds=60)
            await into_traffic(range(3, 8))
            usual, longest = longest, 0.0
            await eventually(failed, "a registration failed", PATIENCE_S)
            await into_traffic(range(8, 10))
        finally:
            if fault == "killed":
                await asyncio.to_thread(server.start)
            else:
                server.thaw()
        # No new version is needed for it.
        await has("000009")
        await into_traffic(range(10, 12))
        await has("000011")
    # A call of MLflow's client that is not answered takes 10 s and is tried twice more.
    assert max(usual, longest) < 10
    champion = client(server).get_model_version_by_alias(deployed, CHAMPION)
    assert champion.tags["headrace.version"] == "000011"
    # Whatever was left in the middle, each run has its version and files, or is none of those that are registered.
    for entry in registered(server, deployed).values():
        assert entry.run_id in server.files
