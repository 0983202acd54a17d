"""Candidates in MLflow, on a SQLite file as without a server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from headrace.platform.artifacts import ArtifactStore
from headrace.rollout.mlflow_registry import MlflowRegistry
from headrace.rollout.registrar import CHALLENGER, CHAMPION, Candidate
from headrace.v1 import model_pb2
from tests.integration.rollout.deployment import Deployment, eventually, running

pytestmark = pytest.mark.timeout(180)


def candidate(store: ArtifactStore, number: int, alias: str = CHAMPION) -> Candidate:
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
    return Candidate(model, f"fraud-{version}", number, alias=alias)


def test_a_version_is_registered_once_with_alias_tags_and_files(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    store = ArtifactStore(tmp_path / "artifacts")
    uri = f"sqlite:///{tmp_path / 'state' / 'mlflow.db'}"
    registry = MlflowRegistry(uri, tmp_path / "state" / "mlflow", store, "fraud")
    registry.register(candidate(store, 1))
    registry.register(candidate(store, 2))
    # After a restart.
    MlflowRegistry(uri, tmp_path / "state" / "mlflow", store, "fraud").register(candidate(store, 2))

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    assert len(client.search_model_versions("name = 'fraud'")) == 2
    found = client.get_model_version_by_alias("fraud", CHAMPION)
    assert found.run_id
    assert found.tags["headrace.version"] == "000002"
    assert found.tags["headrace.features_fingerprint"] == "0000000000000abc"
    assert found.tags["headrace.onnx_sha256"] == hashlib.sha256(b"model 2").hexdigest()
    files = Path(client.download_artifacts(found.run_id, "model", str(tmp_path)))
    assert (files / "model.onnx").read_bytes() == b"model 2"
    lineage = json.loads((files / "lineage.json").read_text())
    assert (lineage["parent"], lineage["learned"]) == ("000001", [{"partition": 0, "first": 0, "end": 10}])
    assert client.get_run(found.run_id).data.metrics == {"log_loss": 0.25}


async def test_a_kill_while_the_database_is_made_leaves_none_that_is_half_made(tmp_path: Path) -> None:
    path, store = tmp_path / "state" / "mlflow.db", ArtifactStore(tmp_path / "artifacts")
    begin = (
        "import sys; from pathlib import Path; from headrace.rollout.mlflow_database import create_database; "
        "create_database(Path(sys.argv[1]))"
    )
    maker = await asyncio.create_subprocess_exec(sys.executable, "-c", begin, str(path))

    async def begun() -> bool:
        return path.exists() or maker.returncode is not None

    await eventually(begun, "the database is begun", 90)
    with suppress(ProcessLookupError):
        maker.kill()
    await maker.wait()
    left = _schema(path)
    MlflowRegistry(f"sqlite:///{path}", tmp_path / "files", store, "fraud").register(candidate(store, 1))
    assert _schema(path) == left


def _schema(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [str(version) for (version,) in database.execute("select version_num from alembic_version")]


def test_old_entries_leave_with_their_runs_and_files(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    store = ArtifactStore(tmp_path / "artifacts")
    uri = f"sqlite:///{tmp_path / 'state' / 'mlflow.db'}"
    registry = MlflowRegistry(uri, tmp_path / "state" / "mlflow", store, "fraud", keep=2)
    for number in range(5):
        registry.register(candidate(store, number, CHALLENGER if number == 1 else CHAMPION))
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = client.get_experiment_by_name("fraud")
    assert found is not None
    experiment = found.experiment_id
    crashed = client.create_run(experiment).info.run_id
    client.set_terminated(crashed)
    under_way = client.create_run(experiment).info.run_id

    registry.retain({"000002"}, {CHAMPION, CHALLENGER})
    entries = client.search_model_versions("name = 'fraud'")
    assert {one.tags["headrace.version"] for one in entries} == {"000001", "000002", "000003", "000004"}
    registry.retain(set(), {CHAMPION})
    entries = client.search_model_versions("name = 'fraud'")
    assert {one.tags["headrace.version"] for one in entries} == {"000003", "000004"}
    assert set(client.get_registered_model("fraud").aliases) == {CHAMPION}
    runs = {one.info.run_id for one in client.search_runs([experiment])}
    assert runs == {one.run_id for one in entries} | {under_way}
    kept = {path.parent.parent.parent.name for path in (tmp_path / "state" / "mlflow").glob("*/artifacts/model/*.onnx")}
    assert kept == {one.run_id for one in entries}


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


@pytest.mark.parametrize("killed", [False, True], ids=["down", "killed in the middle"])
async def test_a_registry_that_fails_holds_nothing_up(deployment: Deployment, *, killed: bool) -> None:
    asked = asyncio.Event()
    connections: list[asyncio.StreamWriter] = []

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read(1)
        asked.set()

    # What MLflow waits for, from a server that hangs or a port where nobody listens, is not waited for here.
    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1] if killed else 1
        async with running(deployment, mlflow_uri=f"http://127.0.0.1:{port}", mlflow_interval_s=0):
            began = time.monotonic()
            await deployment.announce(deployment.version(0))
            await deployment.routed("000000")
            if killed:
                await asyncio.wait_for(asked.wait(), 90)
                began = time.monotonic()
                await deployment.announce(deployment.version(1))
                await deployment.routed("000001")
                server.close()
                for connection in connections:
                    connection.transport.abort()
            for number in (2, 3):
                await deployment.announce(deployment.version(number))
                await deployment.routed(f"{number:06d}")
            assert time.monotonic() - began < 30
