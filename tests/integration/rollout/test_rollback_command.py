"""`headrace models rollback`: an earlier champion answers again."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from headrace.cli.model_catalog import read_catalog
from tests.integration.rollout.deployment import Deployment, running
from tests.integration.rollout.test_operator_commands import gateway, served

pytestmark = pytest.mark.timeout(240)


async def command(deployment: Deployment, *arguments: str) -> tuple[int, str, str]:
    """Run `headrace` in a process of its own; its exit status, what it says, and what it says is wrong."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headrace.cli.__main__",
        *arguments,
        env=deployment.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, wrong = await asyncio.wait_for(process.communicate(), 90)
    return process.returncode or 0, said.decode(), wrong.decode()


async def test_an_earlier_champion_answers_again(deployment: Deployment) -> None:
    async with running(deployment), gateway(deployment):
        await served(deployment, 0, 1)
        status, said, wrong = await command(
            deployment, "models", "rollback", "--to", "0", "--reason", "a test", "--json"
        )
        assert status == 0, wrong
        done = json.loads(said)
        assert (done["changed"], done["gateways"]) == (True, 1)
        assert (done["change"]["version"], done["change"]["replaced"]) == ("000000", "000001")
        assert deployment.routes[-1].champion.model.version == "000000"
        settings = deployment.settings
        catalog = await read_catalog(
            settings["kafka_bootstrap"], deployment.topics, settings["artifacts"], settings["signing_public_key"]
        )
        states = {one.version: catalog.state(one) for one in catalog.announced}
        assert states == {"000000": ("live", "champion"), "000001": ("withdrawn", "")}
        status, said, wrong = await command(deployment, "models", "rollback", "--to", "77")
        assert (status, said) == (2, "")
        assert "no version '000077'" in wrong
        assert len(wrong.splitlines()) == 1
