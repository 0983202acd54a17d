"""Candidates in MLflow: one run and one model version for each, aliases, and what leaves again.

Nothing here is called but by the registrar's thread: serving never waits for MLflow and never fails with it.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from headrace.platform.artifacts import ArtifactStore
from headrace.platform.logging import get_logger
from headrace.rollout.mlflow_database import create_database
from headrace.rollout.registrar import CHALLENGER, CHAMPION, Candidate
from headrace.v1 import model_pb2

SQLITE = "sqlite:///"
VERSION_TAG = "headrace.version"
PAGE = 200
UNFINISHED_S = 3600.0

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Its logs come out as ours do, from WARNING up, and not beside them.
    "MLFLOW_CONFIGURE_LOGGING": "false",
    # Where a run can be looked at is not a line of a log.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that is away is given up after seconds, not minutes: the next champion is the next attempt.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""What MLflow's client reads from the environment; what is set there already stands."""

log = get_logger("mlflow_registry")


class MlflowRegistry:
    """The registry of an MLflow server or database.

    Args:
        uri: tracking and registry URI: `sqlite:///<file>`, `http://host:port`.
        artifacts: directory for artifacts where the URI names a database; a server has its own.
        store: where the model files are.
        pipeline: deployed pipeline name, the name of the experiment and of the registered model.
        keep: how many of the newest entries stay, beside those with an alias and those that are in use.
    """

    def __init__(self, uri: str, artifacts: Path, store: ArtifactStore, pipeline: str, *, keep: int = 20) -> None:
        self._uri = uri
        self._artifacts = artifacts
        self._store = store
        self._pipeline = pipeline
        self._keep = keep
        self._client: Any = None
        self._experiment = ""

    def register(self, candidate: Candidate) -> None:
        """Make a run with the ONNX file and its lineage, a model version on it, and move the alias there.

        A version that is there already, from before a restart, gets the alias and nothing else.
        """
        client = self._connected()
        model = candidate.model
        known = client.search_model_versions(
            f"name = '{self._pipeline}' and tags.`{VERSION_TAG}` = '{model.version}'", max_results=10
        )
        # A crash may have left a run without a version, or files that are not complete: these do not count.
        number = known[0].version if known else self._create(client, candidate)
        if candidate.alias:
            client.set_registered_model_alias(self._pipeline, candidate.alias, number)

    def retain(self, in_use: Collection[str], aliases: Collection[str]) -> None:
        """Remove old entries with their runs and files, runs that a crash left, and aliases that nothing has now.

        Args:
            in_use: versions that a route table names; they stay.
            aliases: those that are to stay.
        """
        client = self._connected()
        there = client.get_registered_model(self._pipeline).aliases
        for alias in set(there) & {CHAMPION, CHALLENGER} - set(aliases):
            client.delete_registered_model_alias(self._pipeline, alias)
        aliased = {int(number) for alias, number in there.items() if alias in aliases}
        entries = sorted(
            _all(client.search_model_versions, f"name = '{self._pipeline}'"), key=lambda one: -int(one.version)
        )
        runs = set()
        for position, entry in enumerate(entries):
            if position < self._keep or int(entry.version) in aliased or entry.tags.get(VERSION_TAG) in in_use:
                runs.add(entry.run_id)
                continue
            # The entry first: nobody is sent to a run whose files are gone.
            client.delete_model_version(self._pipeline, entry.version)
            log.info("registered version removed", version=entry.tags.get(VERSION_TAG), number=entry.version)
        young_ms = (time.time() - UNFINISHED_S) * 1000
        for run in _all(client.search_runs, [self._experiment]):
            # One that has not ended may be that of another process, which is about to end.
            if run.info.run_id not in runs and (run.info.end_time or run.info.start_time < young_ms):
                self._delete_run(client, run)

    def _delete_run(self, client: Any, run: Any) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        # What MLflow itself does with the files of a deleted run is nothing, until somebody runs `mlflow gc`.
        files: Any = get_artifact_repository(run.info.artifact_uri, tracking_uri=self._uri)
        files.delete_artifacts()
        client.delete_run(run.info.run_id)

    def _create(self, client: Any, candidate: Candidate) -> str:
        model = candidate.model
        onnx = self._store.get(model.onnx.uri, model.onnx.sha256.hex())
        run = client.create_run(self._experiment, run_name=candidate.triton_model).info
        with tempfile.TemporaryDirectory(prefix="headrace-") as directory:
            (Path(directory) / "model.onnx").write_bytes(onnx)
            (Path(directory) / "lineage.json").write_text(json.dumps(lineage(candidate), indent=2) + "\n")
            client.log_artifacts(run.run_id, directory, artifact_path="model")
        for name, value in model.metrics.items():
            client.log_metric(run.run_id, name, value)
        client.set_terminated(run.run_id)
        created = client.create_model_version(
            self._pipeline, f"{run.artifact_uri}/model", run.run_id, tags=tags(candidate), description=model.version
        )
        return str(created.version)

    def _connected(self) -> Any:
        if self._client is not None:
            return self._client
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Imported here: it takes more than a second, which nobody who starts the service should wait for.
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy is deprecated", DeprecationWarning)
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        is_database = not self._uri.startswith("http")
        if is_database:
            self._artifacts.mkdir(parents=True, exist_ok=True)
        if self._uri.startswith(SQLITE):
            create_database(Path(self._uri.removeprefix(SQLITE)))
        client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        experiment = client.get_experiment_by_name(self._pipeline)
        if experiment is not None:
            self._experiment = experiment.experiment_id
        else:
            location = self._artifacts.resolve().as_uri() if is_database else None
            self._experiment = client.create_experiment(self._pipeline, artifact_location=location)
        try:
            client.create_registered_model(self._pipeline)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        self._client = client
        return client


def _all(search: Callable[..., Any], what: Any) -> list[Any]:
    """All pages of a search."""
    found: list[Any] = []
    token = None
    while True:
        page = search(what, max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def tags(candidate: Candidate) -> dict[str, str]:
    """Tags of a registered version, by which it is found from a prediction and the other way round."""
    model = candidate.model
    return {
        VERSION_TAG: model.version,
        "headrace.parent": model.parent,
        "headrace.recipe": model.recipe,
        "headrace.way_into_traffic": model_pb2.ReleaseKind.Name(model.kind).removeprefix("RELEASE_KIND_").lower(),
        "headrace.features_fingerprint": f"{model.features_fingerprint:016x}",
        "headrace.recipe_fingerprint": model.recipe_fingerprint,
        "headrace.onnx_sha256": model.onnx.sha256.hex(),
        "headrace.triton_model": candidate.triton_model,
        "headrace.route_epoch": str(candidate.epoch),
    }


def lineage(candidate: Candidate) -> dict[str, Any]:
    """Where a version comes from, as plain JSON: parent, outcomes learned, fingerprints, hashes, metrics."""
    model = candidate.model
    return {
        "pipeline": model.pipeline,
        "version": model.version,
        "parent": model.parent,
        "recipe": model.recipe,
        "untrained": model.untrained,
        "features_fingerprint": f"{model.features_fingerprint:016x}",
        "feature_names": list(model.feature_names),
        "recipe_fingerprint": model.recipe_fingerprint,
        "learner_epoch": model.learner_epoch,
        "learned_count": model.learned_count,
        "learned": [{"partition": one.partition, "first": one.first, "end": one.end} for one in model.learned],
        "model_time_us": model.model_time_us,
        "created_time_us": model.created_time_us,
        "metrics": dict(model.metrics),
        "artifacts": {
            name: {"uri": artifact.uri, "sha256": artifact.sha256.hex(), "size_bytes": artifact.size_bytes}
            for name, artifact in (("onnx", model.onnx), ("snapshot", model.snapshot), ("order", model.order))
            if artifact.uri
        },
        "triton_model": candidate.triton_model,
        "route_epoch": candidate.epoch,
    }
