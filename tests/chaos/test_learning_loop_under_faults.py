"""The loop while outcomes, learner, rollout, Triton and MLflow are killed: joined once, learned once, with its lineage.

Minutes long, so not part of `make test`: `make test-chaos`. `HEADRACE_CHAOS_SEED` is the first of the seeds,
`HEADRACE_CHAOS_RUNS` says how many there are, `HEADRACE_CHAOS_EVENTS` how many events each has, and
`HEADRACE_CHAOS_SECONDS` for how long they flow.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from deploy.local import Stack
from headrace.demo.history import History
from headrace.demo.history_source import load_history
from headrace.pipeline import Pipeline
from headrace.platform.pipelines import load_pipeline
from tests.chaos.gateway_account import table
from tests.chaos.learning_account import Account
from tests.chaos.learning_loop import DECLARATION, Loop
from tests.chaos.learning_stack import FAULTS, REGISTRY_FAULTS, LoopFaults
from tests.chaos.learning_without import SERVICES
from tests.private_stack import private_stack

SEED = int(os.environ.get("HEADRACE_CHAOS_SEED") or secrets.randbelow(10**6))
SEEDS = range(SEED, SEED + int(os.environ.get("HEADRACE_CHAOS_RUNS") or 3))
EVENTS = int(os.environ.get("HEADRACE_CHAOS_EVENTS") or 4_000)
CONTROL_EVENTS = EVENTS * 5 // 8
SECONDS = float(os.environ.get("HEADRACE_CHAOS_SECONDS") or 120)
"""For so long events flow."""
LEAST_KILLS = 5

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with private_stack() as stack:
        yield stack


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return load_pipeline(DECLARATION)


@pytest.fixture(scope="module")
def history(pipeline: Pipeline) -> History:
    return load_history(DECLARATION, pipeline, None, EVENTS, seed=7)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(
    private: Stack, pipeline: Pipeline, history: History, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Any]:
    """The weights of each version of a lockstep run in which nothing is killed."""
    loop = Loop(private, pipeline, history, "undisturbed", tmp_path_factory.mktemp("loop") / "run", lockstep=True)
    await loop.run()
    return await loop.weights()


@pytest.mark.parametrize("seed", SEEDS)
async def test_everything_is_joined_and_learned_once(
    private: Stack, pipeline: Pipeline, history: History, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    name, rate = f"flow-{seed}", EVENTS / SECONDS
    loop = Loop(private, pipeline, history, name, tmp_path / "run", rate=rate, mlflow_server=True)
    faults = LoopFaults(private, loop.services, seed, [*FAULTS, *REGISTRY_FAULTS])
    await loop.run(faults.go_on)
    await check(loop, faults, f"flowing, seed {seed}", capsys)


@pytest.mark.parametrize("seed", SEEDS)
async def test_lockstep_learns_the_same_weights_as_undisturbed(
    private: Stack,
    pipeline: Pipeline,
    history: History,
    undisturbed: dict[int, Any],
    tmp_path: Path,
    seed: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loop = Loop(private, pipeline, history, f"lockstep-{seed}", tmp_path / "run", lockstep=True)
    faults = LoopFaults(private, loop.services, seed)
    await loop.run(faults.go_on)
    await check(loop, faults, f"in lockstep, seed {seed}", capsys)
    weights = await loop.weights()
    assert max(weights) == len(history)
    assert weights[len(history)] == undisturbed[len(history)]
    assert weights == undisturbed


@pytest.mark.parametrize(
    ("missing", "noticed"),
    [("transaction", {"outcomes_doubled"}), ("offsets", {"learned_twice", "ranges_wrong", "replays_wrong"})],
)
async def test_what_is_taken_out_is_missed(
    private: Stack,
    pipeline: Pipeline,
    tmp_path: Path,
    missing: str,
    noticed: set[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The control: what the tests above find nothing of is found when a part of what keeps the loop is taken out."""
    history = load_history(DECLARATION, pipeline, None, CONTROL_EVENTS, seed=7)
    service = SERVICES[missing]
    command = {service: ("tests.chaos.learning_without", missing)}
    name, rate = f"without-{missing}-{SEED}", CONTROL_EVENTS / SECONDS
    loop = Loop(private, pipeline, history, name, tmp_path / "run", rate=rate, commands=command)
    faults = LoopFaults(private, loop.services, SEED, [service])
    await loop.run(faults.go_on)
    found = await loop.account()
    say(capsys, await lines(loop, faults, found), f"without the {missing}")
    assert noticed <= found.wrong.keys()


async def check(loop: Loop, faults: LoopFaults, title: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing may be wrong with what a run has left."""
    found = await loop.account()
    say(capsys, await lines(loop, faults, found), title)
    assert found.wrong == {}, found
    assert loop.failed_requests == []
    assert faults.kills.total() >= LEAST_KILLS
    assert set(loop.registered().values()) <= {1}


async def lines(loop: Loop, faults: LoopFaults, found: Account) -> list[tuple[str, object]]:
    versions = await loop.versions()
    return [
        ("events, labels", f"{len(loop.history):,}, {int(loop.history.labelled.sum()):,}"),
        ("seconds", f"{loop.took_s:.0f}"),
        ("faults", faults.deck.done),
        ("kills", faults.kills),
        ("ends of services", loop.services.exits),
        ("stack traces", ", ".join(loop.services.tracebacks) or "none"),
        ("versions, learners", f"{len(versions)}, {len({one.learner_epoch for one in versions})}"),
        ("registered in MLflow", len(loop.registered())),
        *((name.replace("_", " "), len(wrong)) for name, wrong in vars(found).items()),
    ]


def say(capsys: pytest.CaptureFixture[str], shown: list[tuple[str, object]], title: str) -> None:
    """For whoever watches."""
    with capsys.disabled():
        sys.stdout.write(table(f"\n{title}", shown) + "\n")
        sys.stdout.flush()
