"""Registers champions in MLflow, from a thread of its own: serving never waits for it and never fails with it."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from headrace.platform.artifacts import ArtifactStore
from headrace.platform.logging import get_logger
from headrace.rollout import metrics
from headrace.v1 import model_pb2

ALIAS = "champion"
VERSION_TAG = "headrace.version"

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Its logs come out as ours do, from WARNING up, and not beside them.
    "MLFLOW_CONFIGURE_LOGGING": "false",
    # A server that is away is given up after seconds, not minutes: the next champion is the next attempt.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""What MLflow's client reads from the environment; what is set there already stands."""

log = get_logger("mlflow_registry")


@dataclass(frozen=True)
class Champion:
    """A version to register.

    Attributes:
        model: as announced.
        triton_model: name of the Triton model that serves it.
        epoch: of the route table that made it champion.
    """

    model: model_pb2.ModelVersion
    triton_model: str
    epoch: int


class Registry(Protocol):
    """Where champions are registered."""

    def register(self, champion: Champion) -> None:
        """Register one; it is no error when it is registered already. May take seconds and raise anything."""


class MlflowRegistry:
    """The registry of an MLflow server or database.

    Args:
        uri: tracking and registry URI: `sqlite:///<file>`, `http://host:port`.
        artifacts: directory for artifacts where the URI names a database; a server has its own.
        store: where the model files are.
        pipeline: deployed pipeline name, the name of the experiment and of the registered model.
    """

    def __init__(self, uri: str, artifacts: Path, store: ArtifactStore, pipeline: str) -> None:
        self._uri = uri
        self._artifacts = artifacts
        self._store = store
        self._pipeline = pipeline
        self._client: Any = None
        self._experiment = ""

    def register(self, champion: Champion) -> None:
        """Make a run with the ONNX file and its lineage, a model version on it, and move the alias there.

        A version that is there already, from before a restart, gets the alias and nothing else.
        """
        client = self._connected()
        model = champion.model
        known = client.search_model_versions(
            f"name = '{self._pipeline}' and tags.`{VERSION_TAG}` = '{model.version}'", max_results=10
        )
        # A crash may have left a version whose files are not complete: it is not tagged, so it does not count.
        number = known[0].version if known else self._create(client, champion)
        client.set_registered_model_alias(self._pipeline, ALIAS, number)

    def _create(self, client: Any, champion: Champion) -> str:
        model = champion.model
        onnx = self._store.get(model.onnx.uri, model.onnx.sha256.hex())
        run = client.create_run(self._experiment, run_name=champion.triton_model).info
        with tempfile.TemporaryDirectory(prefix="headrace-") as directory:
            (Path(directory) / "model.onnx").write_bytes(onnx)
            (Path(directory) / "lineage.json").write_text(json.dumps(lineage(champion), indent=2) + "\n")
            client.log_artifacts(run.run_id, directory, artifact_path="model")
        for name, value in model.metrics.items():
            client.log_metric(run.run_id, name, value)
        client.set_terminated(run.run_id)
        created = client.create_model_version(
            self._pipeline, f"{run.artifact_uri}/model", run.run_id, tags=tags(champion), description=model.version
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
            Path(self._uri.partition(":///")[2]).parent.mkdir(parents=True, exist_ok=True)
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


def tags(champion: Champion) -> dict[str, str]:
    """Tags of a registered version, by which it is found from a prediction and the other way round."""
    model = champion.model
    return {
        VERSION_TAG: model.version,
        "headrace.parent": model.parent,
        "headrace.features_fingerprint": f"{model.features_fingerprint:016x}",
        "headrace.recipe_fingerprint": model.recipe_fingerprint,
        "headrace.onnx_sha256": model.onnx.sha256.hex(),
        "headrace.triton_model": champion.triton_model,
        "headrace.route_epoch": str(champion.epoch),
    }


def lineage(champion: Champion) -> dict[str, Any]:
    """Where a version comes from, as plain JSON: parent, outcomes learned, fingerprints, hashes, metrics."""
    model = champion.model
    return {
        "pipeline": model.pipeline,
        "version": model.version,
        "parent": model.parent,
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
        "triton_model": champion.triton_model,
        "route_epoch": champion.epoch,
    }


class Registrar:
    """The thread that registers champions: the first at once, then the newest once in an interval.

    It holds one champion at the most: a newer one takes the place of one that still waits.

    Args:
        registry: where to.
        interval_s: fewest seconds between two registrations.
        clock: monotonic seconds.
    """

    def __init__(self, registry: Registry, *, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._interval_s = interval_s
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: Champion | None = None
        self._closed = False
        # A daemon: a database that hangs must not keep the process from ending; `close` waits for as long as it may.
        self._thread = threading.Thread(target=self._run, name="mlflow-registry", daemon=True)
        self._thread.start()

    def offer(self, champion: Champion) -> None:
        """Hand a champion over; never waits for the registry."""
        with self._changed:
            if self._waiting is not None:
                metrics.REGISTRY_SKIPPED.inc()
            self._waiting = champion
            self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Finish the registration under way, leave out what waits, and end the thread, within a time."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        due = self._clock()
        while (champion := self._next(due)) is not None:
            due = self._clock() + self._interval_s
            try:
                self._registry.register(champion)
            except Exception as error:  # noqa: BLE001
                # Whatever goes wrong in the registry, and it may be anything, is the registry's alone.
                metrics.REGISTRY_FAILURES.inc()
                log.error("registration failed", version=champion.model.version, reason=str(error))
            else:
                metrics.REGISTERED.inc()
                log.info("version registered", version=champion.model.version)

    def _next(self, due: float) -> Champion | None:
        """The next champion to register, once it is due; None when the thread is to end."""
        with self._changed:
            while not self._closed:
                wait = due - self._clock()
                if self._waiting is not None and wait <= 0:
                    champion, self._waiting = self._waiting, None
                    return champion
                self._changed.wait(wait if self._waiting is not None else None)
        return None
