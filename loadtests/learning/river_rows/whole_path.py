"""A data set through the whole path: events → features as given → predictions → outcomes → learner.

`python -m loadtests.learning.river_rows.whole_path DATASET`. The replay is in lockstep, on servers of its own, with all
models of the page side by side. What each said of each row before it learned it is in the snapshots of its versions.

Prints a JSON object: accuracy and F1 by model.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from deploy.local import Layout, Ports, Stack
from deploy.local.keys import signing_keys
from headrace.demo.figures import faults
from headrace.demo.run import DemoOptions, run_demo
from headrace.learner import signed_artifacts, snapshot
from headrace.learner.announcements import read_announced
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import Verifier
from headrace.platform.topics import Topics
from headrace.v1.model_pb2 import ModelVersion
from loadtests.learning.river_rows.data import FOLDER, Dataset, load
from loadtests.learning.river_rows.declaration import DECLARED, recipe_name
from loadtests.learning.river_rows.history import FOLDER_VARIABLE
from loadtests.learning.river_rows.page import Quality
from loadtests.learning.river_rows.prequential import unanswered
from loadtests.processes import ProcessFailed
from loadtests.servers import BENCH, free_ports

DEADLINE_S = 5400
READ_S = 120.0

Scores = tuple[NDArray[np.float64], NDArray[np.bool_]]


@contextmanager
def private_stack(logs: Path) -> Iterator[Stack]:
    """A stack on free ports while the block runs; its files are gone afterwards.

    Args:
        logs: where the logs of its programs are kept when the block fails.
    """
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
    except BaseException:
        shutil.copytree(stack.layout.logs, logs, dirs_exist_ok=True)
        raise
    finally:
        stack.stop()
        shutil.rmtree(directory)


def replayed(name: str, events: int, console: Console) -> dict[str, Scores]:
    """Replay the first rows; scores and labels in the order in which they were learned, by name of the recipe.

    Raises:
        ProcessFailed: something was missing, doubled or different.
    """
    with private_stack(BENCH / f"river-{name.lower()}-logs") as stack:
        bootstrap = f"127.0.0.1:{stack.ports.kafka}"
        here = stack.layout.run.parent
        options = DemoOptions(
            f"loadtests/learning/river_rows/{name.lower()}.py",
            events=events,
            keep=True,
            lockstep=True,
            gateway=f"127.0.0.1:{stack.ports.gateway}",
            folder=here / "report",
        )
        os.environ |= {
            "HEADRACE_KAFKA_BOOTSTRAP": bootstrap,
            "HEADRACE_LEARNER_KEEP_VERSIONS": "1000000",
        }
        failed = run_demo(options, console, stack)
        report = json.loads((here / "report" / "report.json").read_text(encoding="utf-8"))
        if failed:
            raise ProcessFailed(f"the replay of {name} has faults: {'; '.join(map(str, faults(report)))}")
        versions = asyncio.run(read_announced(bootstrap, Topics(report["pipeline"]), READ_S))
        store, verifier = ArtifactStore(here / "artifacts"), Verifier.read(signing_keys(stack.layout.keys).public)
        recipes = dict.fromkeys(version.recipe for version in versions)
        return {one: scores(store, verifier, [v for v in versions if v.recipe == one]) for one in recipes}


def scores(store: ArtifactStore, verifier: Verifier, versions: Sequence[ModelVersion]) -> Scores:
    """All scores of a model: each version has those of the newest outcomes, of which some are its parent's too."""
    parts: list[Scores] = []
    learned = 0
    for version in versions:
        new, learned = version.learned_count - learned, version.learned_count
        if not new:
            continue
        state: dict[str, Any] = snapshot.decode(
            signed_artifacts.get(store, verifier, version.snapshot, version.version)
        ).metrics
        of_version = np.frombuffer(base64.b64decode(state["scores"]), "<f8")
        labels = np.frombuffer(base64.b64decode(state["labels"]), np.uint8).astype(np.bool_)
        if len(of_version) < new:
            raise ProcessFailed(f"version {version.version} learned {new} outcomes and has {len(of_version)} scores")
        parts.append((of_version[-new:], labels[-new:]))
    return np.concatenate([part for part, _ in parts]), np.concatenate([part for _, part in parts])


def qualities(name: str, dataset: Dataset, console: Console) -> dict[str, Quality]:
    """Accuracy and F1 by model of the page.

    Raises:
        ProcessFailed: a model has not learned the rows in their order, or the replay has faults.
    """
    found = replayed(name, len(dataset), console)
    result = {}
    for model in dataset.declared.models:
        of_model, labels = found[recipe_name(model)]
        if len(labels) != len(dataset) or (labels != dataset.labels).any():
            raise ProcessFailed(f"{name}: {model} has not learned the rows in their order")
        result[model] = Quality.of(of_model, labels, unanswered(model, dataset))
    return result


def main() -> int:
    """Replay and print."""
    parser = argparse.ArgumentParser(description="A data set of River's page through the whole path.")
    parser.add_argument("dataset", choices=list(DECLARED))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGALRM):
        # So that the servers are stopped.
        signal.signal(number, lambda got, frame: sys.exit(128 + got))
    signal.alarm(DEADLINE_S)
    os.environ[FOLDER_VARIABLE] = str(arguments.folder.resolve())
    dataset = load(arguments.dataset, arguments.folder)
    try:
        found = qualities(arguments.dataset, dataset, Console(stderr=True))
    except ProcessFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({model: asdict(quality) for model, quality in found.items()}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
