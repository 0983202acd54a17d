"""`headrace pipeline check` against the state of a worker that runs."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from headrace.cli.pipeline import pipeline
from headrace.features.state_description import read_descriptions
from headrace.features.stored_states import delete_state
from headrace.platform.pipelines import PipelineLoadError
from tests.integration.features.deployment import Deployment

FRAUD = Path("pipelines/fraud.py")
SOURCE = FRAUD.read_text()

CHANGES = {
    "nothing": ("", "", 0, "made by the same definition: nothing changes"),
    "an alert rule": ("monitoring=Monitoring()", "monitoring=Monitoring(min_auc=0.7)", 0, "nothing changes"),
    "an optional field at the end": (
        "maximum=1_000_000_00)),",
        'maximum=1_000_000_00), Text("channel", optional=True)),',
        0,
        "event field channel is new\n    a trailing optional field: events without it are still read",
    ),
    "a shorter window": ("30 * DAY)\n\n", "14 * DAY)\n\n", 1, "feature customer_count_30d is gone"),
    "a field that is required": (
        "maximum=1_000_000_00)),",
        'maximum=1_000_000_00), Text("channel")),',
        1,
        "it is required, so packed events without it are refused",
    ),
}


async def checked(deployment: Deployment, declaration: Path | str, *options: str) -> tuple[int, str]:
    environment = {"HEADRACE_NAMESPACE": deployment.namespace, "HEADRACE_REDIS_URL": deployment.redis_url}
    arguments = ["check", str(declaration), *options]
    # It has an event loop of its own.
    done = await asyncio.to_thread(CliRunner().invoke, pipeline, arguments, env=environment)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


async def test_a_change_is_told_by_what_it_breaks(deployment: Deployment, tmp_path: Path) -> None:
    status, said = await checked(deployment, FRAUD)
    assert (status, "no state of a definition to compare with" in said) == (0, True), said
    worker = await deployment.start()
    await deployment.until(lambda: worker.answers("/readyz"), "the worker is ready")
    (state,) = await read_descriptions(deployment.client, deployment.topics.deployed)
    assert state.fingerprint == deployment.plan.pipeline.features_fingerprint
    for what, (before, after, expected, words) in CHANGES.items():
        changed = tmp_path / "changed.py"
        assert before in SOURCE
        changed.write_text(SOURCE.replace(before, after, 1) if before else SOURCE)
        status, said = await checked(deployment, changed)
        assert status == expected, (what, said)
        assert words in said, (what, said)
        assert ("headrace features backfill" in said) == (what == "a shorter window" or expected == 1), (what, said)
    status, said = await checked(deployment, changed, "--json")
    data: dict[str, Any] = json.loads(said)
    assert (status, data["breaking"], data["running"]) == (1, True, f"{state.fingerprint:016x}")
    worker.send(signal.SIGTERM)
    await worker.wait()
    await delete_state(deployment.client, deployment.topics.deployed, state.fingerprint)
    assert await read_descriptions(deployment.client, deployment.topics.deployed) == []


@pytest.mark.parametrize("declaration", ["none.py", "nothing"])
async def test_a_definition_that_is_not_there_is_named(deployment: Deployment, declaration: str) -> None:
    with pytest.raises(PipelineLoadError, match=f"pipeline {declaration}: there is no such"):
        await checked(deployment, declaration)
