"""River's Phishing rows through the whole path: events → features as given → predictions → outcomes → learner.

The replay is in lockstep on servers of its own. What each model said of each row before it learned it is in the
snapshot of its newest version.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from deploy.local import Layout, Ports, Stack
from deploy.local.keys import signing_keys
from headrace.demo.run import DemoOptions, run_demo
from headrace.learner import signed_artifacts, snapshot
from headrace.learner.announcements import read_announced
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import Verifier
from headrace.platform.topics import Topics
from headrace.v1.model_pb2 import ModelVersion
from loadtests.learning.phishing import declared
from loadtests.processes import ProcessFailed
from loadtests.servers import free_ports

DECLARATION = "loadtests/learning/phishing.py"
LEARNER = {"HEADRACE_LEARNER_KEEP_VERSIONS": "100000"}

Scores = tuple[NDArray[np.float64], NDArray[np.bool_]]


def recipe_name(model: str) -> str:
    """Name of the recipe of a model of the page."""
    return declared(model).name


@contextmanager
def private_stack() -> Iterator[Stack]:
    """A stack on free ports while the block runs; its files are gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
    names = list(Ports().operations)
    kafka, controller, redis, http, grpc, metrics, gateway, *operations = free_ports(7 + len(names))
    ports = Ports(
        kafka, controller, redis, http, grpc, metrics, gateway, operations=dict(zip(names, operations, strict=True))
    )
    stack = Stack(Layout(run=directory / "local", keys=directory / "keys"), ports)
    try:
        stack.start_infrastructure()
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(directory)


def replayed(events: int) -> dict[str, Scores]:
    """Replay so many rows; scores and labels in the order in which they were learned, by name of the model.

    Raises:
        ProcessFailed: something was missing or doubled.
    """
    with private_stack() as stack:
        bootstrap = f"127.0.0.1:{stack.ports.kafka}"
        here = stack.layout.run.parent
        gateway = f"127.0.0.1:{stack.ports.gateway}"
        options = DemoOptions(
            DECLARATION, events=events, keep=True, lockstep=True, gateway=gateway, folder=here / "report"
        )
        os.environ |= {"HEADRACE_KAFKA_BOOTSTRAP": bootstrap, **LEARNER}
        if run_demo(options, Console(), stack):
            raise ProcessFailed("something is missing, doubled or different in the replay: its report says what")
        report = json.loads((here / "report" / "report.json").read_text(encoding="utf-8"))
        versions = asyncio.run(read_announced(bootstrap, Topics(report["pipeline"])))
        newest: dict[str, ModelVersion] = {version.recipe: version for version in versions}
        store, verifier = ArtifactStore(here / "artifacts"), Verifier.read(signing_keys(stack.layout.keys).public)
        return {name: _scores(store, verifier, version) for name, version in newest.items()}


def _scores(store: ArtifactStore, verifier: Verifier, version: ModelVersion) -> Scores:
    content = signed_artifacts.get(store, verifier, version.snapshot, version.version)
    state: dict[str, Any] = snapshot.decode(content).metrics
    return (
        np.frombuffer(base64.b64decode(state["scores"]), "<f8"),
        np.frombuffer(base64.b64decode(state["labels"]), np.uint8).astype(np.bool_),
    )
