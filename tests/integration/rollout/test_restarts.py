"""Triton, the rollout and a second rollout come and go; what is served stays right."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from headrace.platform.kafka import KafkaFault
from headrace.platform.triton_config import triton_model_config
from headrace.rollout.triton import TritonError, TritonServer
from tests.integration.private_triton import PrivateTriton
from tests.integration.rollout.deployment import Deployment, eventually, running

pytestmark = [pytest.mark.timeout(180), pytest.mark.faults]


@asynccontextmanager
async def process(deployment: Deployment, **given: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """The rollout as a process of its own, killed in the end if it still runs."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headrace.rollout",
        env=deployment.environment(**given),
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


async def test_a_killed_triton_gets_its_models_back(deployment: Deployment, private_triton: PrivateTriton) -> None:
    private_triton.start()
    server = TritonServer(private_triton.url)
    async with running(deployment, triton_urls=(private_triton.url,)) as health:
        for number in range(3):
            await deployment.announce(deployment.version(number))
            await deployment.routed(f"{number:06d}", seconds=60)
        private_triton.kill()

        async def reported() -> bool:
            return "degraded" in health.component("triton").reason

        await eventually(reported, "readiness says that no Triton answers")
        assert health.alive
        # Announced while it is away: waits, and the champion stays.
        await deployment.announce(deployment.version(3))
        private_triton.start()
        await deployment.serves(server, "000001", "000002", "000003")
        table = await deployment.routed("000003", seconds=60)
        assert table.epoch == 4

        async def ready_again() -> bool:
            return health.component("triton").state == "ready"

        await eventually(ready_again, "ready again")
    await server.close()


async def test_without_triton_versions_are_read_and_none_is_routed(
    deployment: Deployment, private_triton: PrivateTriton
) -> None:
    async with running(deployment, triton_urls=(private_triton.url,)) as health:
        await deployment.announce(deployment.version(0))
        await deployment.announce(deployment.version(1))

        async def reported() -> bool:
            return "degraded" in health.component("triton").reason

        await eventually(reported, "readiness says that no Triton answers")
        assert health.component("models").state == "ready"
        assert not deployment.routes
        private_triton.start()
        await deployment.routed("000001", seconds=60)
    assert [table.epoch for table in deployment.routes] == [1]


async def test_one_of_two_tritons_is_enough_and_the_other_catches_up(
    deployment: Deployment, triton: TritonServer, private_triton: PrivateTriton
) -> None:
    second = TritonServer(private_triton.url)
    async with running(deployment, triton_urls=(triton.url, private_triton.url)):
        await deployment.announce(deployment.version(0))
        await deployment.routed("000000", seconds=60)
        await deployment.serves(triton, "000000")
        private_triton.start()
        await deployment.serves(second, "000000")
        await deployment.announce(deployment.version(1))
        await deployment.routed("000001", seconds=60)
        for server in (triton, second):
            assert await deployment.loaded(server) == {"000000", "000001"}
    await second.close()


async def test_a_wrong_model_under_a_routed_name_is_replaced(deployment: Deployment, triton: TritonServer) -> None:
    async with running(deployment):
        await deployment.announce(deployment.version(0))
        table = await deployment.routed("000000", seconds=60)
    other = deployment.version(1)
    content = deployment.store.get(other.onnx.uri, other.onnx.sha256.hex())
    name = table.champion.triton_model
    await triton.load(name, content, triton_model_config(name, len(other.feature_names)))
    golden = table.champion.model.golden
    rows = np.asarray(golden.features, np.float32).reshape(golden.rows, -1)
    async with running(deployment):

        async def right() -> bool:
            try:
                scores = await triton.score(table.champion.triton_model, rows)
            except TritonError:
                # While Triton changes one for the other, there is none.
                return False
            return bool(np.abs(scores - np.asarray(golden.scores)).max() < 1e-5)

        await eventually(right, "the right model is served")


async def test_killed_at_any_moment_epochs_go_on_and_the_newest_is_served(
    deployment: Deployment, triton: TritonServer
) -> None:
    number = -1
    for pause_s in (0.0, 0.05, 0.1, 0.2, 0.4):
        async with process(deployment) as rollout:
            if number >= 0:
                # It has taken over when it serves what was announced before it was started.
                await deployment.routed(f"{number:06d}", seconds=60)
            number += 1
            await deployment.announce(deployment.version(number))
            # The moment of the kill is what is varied here: in the read, in the push, behind the route.
            await asyncio.sleep(pause_s)
            rollout.kill()
            await rollout.wait()
        number += 1
        await deployment.announce(deployment.version(number))
    async with process(deployment) as rollout:
        await deployment.routed(f"{number:06d}", seconds=60)
        await deployment.leases.renew("one", deployment.routes[-1].epoch, [f"{number:06d}"])
        table = await deployment.routed(f"{number:06d}", adopted=True)
        await deployment.serves(triton, table.champion.model.version, *(one.model.version for one in table.previous))
        rollout.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(rollout.wait(), 15) == 0
    epochs = [table.epoch for table in deployment.routes if not table.adopted]
    assert epochs == list(range(1, len(epochs) + 1))
    champions = [table.champion.model.version for table in deployment.routes]
    assert champions == sorted(champions)


async def test_a_rollout_that_was_replaced_writes_nothing_and_ends(deployment: Deployment) -> None:
    async with process(deployment) as first:
        await deployment.announce(deployment.version(0))
        await deployment.routed("000000", seconds=60)
        os.kill(first.pid, signal.SIGSTOP)
        async with process(deployment):
            await deployment.announce(deployment.version(1))
            await deployment.routed("000001", seconds=60)
            os.kill(first.pid, signal.SIGCONT)
            assert await asyncio.wait_for(first.wait(), 20) == 1
            await deployment.announce(deployment.version(2))
            await deployment.routed("000002", seconds=60)
    assert [table.epoch for table in deployment.routes] == [1, 2, 3]


async def test_leases_outlive_an_unreadable_redis(deployment: Deployment, triton: TritonServer) -> None:
    async with running(deployment, keep_previous=0, redis_url="redis://127.0.0.1:1/0") as health:
        for number in range(2):
            await deployment.announce(deployment.version(number))
            await deployment.routed(f"{number:06d}", seconds=60)
        await deployment.serves(triton, "000000", "000001")
        assert "degraded" in health.component("redis").reason
    assert not any(table.adopted for table in deployment.routes)


async def test_topics_that_are_not_there_are_named(deployment: Deployment) -> None:
    with pytest.raises(KafkaFault, match=r"headrace topics create"):
        async with running(deployment, namespace="nowhere"):
            pass
