"""The same rows give the same model in every process, whether it was saved and restored on the way or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.onnx_export import export
from tests.unit.learner.recipe_process import ROWS
from tests.unit.learner.river_models import DECLARED, NAMES, recipe, rows

pytestmark = pytest.mark.timeout(300)

CUT = 700
SETS_OF_NAMES = {"k-means"}
HASHES: dict[str, str] = {}


def learn(first: int, last: int, directory: Path, hash_seed: int) -> Any:
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.unit.learner.recipe_process", str(first), str(last), str(directory)]
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": "services"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """What an uninterrupted process found, and one that took up what another had saved."""
    directory = tmp_path_factory.mktemp("states")
    whole = learn(0, ROWS, directory / "whole", hash_seed=1)
    learn(0, CUT, directory / "cut", hash_seed=2)
    return whole, learn(CUT, ROWS, directory / "cut", hash_seed=3)


@pytest.mark.parametrize("name", sorted(set(DECLARED) - SETS_OF_NAMES))
def test_a_restored_model_goes_on_to_the_bit(learned: tuple[Any, Any], name: str) -> None:
    whole, restored = learned
    assert restored[name] == whole[name]


@pytest.mark.parametrize("name", sorted(SETS_OF_NAMES))
def test_what_goes_through_sets_of_names_does_so_with_one_hash_seed(name: str) -> None:
    values, labels, ids = rows(ROWS)
    whole, first, second = recipe(name), recipe(name), recipe(name)
    scores = whole.learn(values, labels, NAMES, ids)
    first.learn(values[:CUT], labels[:CUT], NAMES, ids[:CUT])
    # Neither export nor scoring leaves a trace.
    export(first.copy().model, NAMES)
    first.copy().score(values, NAMES)
    second.restore(first.state())
    assert second.learn(values[CUT:], labels[CUT:], NAMES, ids[CUT:]).tolist() == scores[CUT:].tolist()
    assert second.comparable(second.state()) == whole.comparable(whole.state())


@pytest.mark.parametrize("seed", ["random", "7", "0"])
def test_the_learner_runs_with_one_hash_seed(seed: str) -> None:
    code = (
        "import os, sys; from headrace.learner.hash_seed import pin_hash_seed; pin_hash_seed(); "
        "print(os.environ['PYTHONHASHSEED'], hash('amount'), os.getpid(), sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "an argument"],
        env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": "services"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        printed, _ = process.communicate(timeout=60)
    assert printed.split()[0] == "0"
    assert printed.split()[2:] == [str(process.pid), "['an", "argument']"]
    assert printed.split()[1] == HASHES.setdefault("amount", printed.split()[1])


def test_the_error_rose_and_the_model_began_anew(learned: tuple[Any, Any]) -> None:
    assert learned[0]["reset on drift"]["resets"] == 1
