"""Rollout and two Tritons of its own are killed and suspended at random while versions come: no wrong route.

HEADRACE_CHAOS_SEED=n repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from headrace.rollout.triton import TritonServer
from tests.integration.conftest import kafka_bootstrap, namespace, redis_url, triton_url
from tests.integration.private_triton import PrivateTriton
from tests.integration.rollout.conftest import deployment, triton
from tests.integration.rollout.deployment import Deployment, eventually
from tests.integration.rollout.test_restarts import process
from tests.shared_stack import stack

__all__ = ["deployment", "kafka_bootstrap", "namespace", "redis_url", "stack", "triton", "triton_url"]
pytestmark = pytest.mark.timeout(900)

ROUNDS = 10


@pytest.fixture
def tritons(tmp_path: Path) -> Iterator[tuple[PrivateTriton, PrivateTriton]]:
    pair = PrivateTriton(tmp_path / "first"), PrivateTriton(tmp_path / "second")
    for one in pair:
        one.start()
    yield pair
    for one in pair:
        one.kill()


@pytest.fixture
async def clients(tritons: tuple[PrivateTriton, PrivateTriton]) -> AsyncIterator[list[TritonServer]]:
    made = [TritonServer(one.url) for one in tritons]
    yield made
    for one in made:
        await one.close()


async def test_pushes_go_on_where_they_stopped(
    deployment: Deployment,
    tritons: tuple[PrivateTriton, PrivateTriton],
    clients: list[TritonServer],
) -> None:
    seed = int(os.environ.get("HEADRACE_CHAOS_SEED", "") or random.SystemRandom().randrange(10_000))
    print(f"HEADRACE_CHAOS_SEED={seed}")  # noqa: T201
    chance = random.Random(seed)
    bad: set[str] = set()
    number = 0
    urls = tuple(one.url for one in tritons)
    for _ in range(ROUNDS):
        async with process(deployment, triton_urls=urls, lease_poll_s=0.02) as rollout:
            for _ in range(chance.randint(1, 3)):
                model = deployment.version(number)
                if number and chance.random() < 0.3:
                    model.golden.scores[0] += 0.01
                    bad.add(model.version)
                await deployment.announce(model)
                number += 1
            if not deployment.routes or chance.random() < 0.5:
                before = len(deployment.routes)

                async def routed_once_more(count: int = before) -> bool:
                    return len(deployment.routes) > count

                if len(bad) < number and deployment.version(number - 1).version not in bad:
                    await eventually(routed_once_more, "a version is routed", 90)
            # The moment is what is varied.
            await asyncio.sleep(chance.random() * 0.6)
            victim = chance.choice(("rollout", "first", "second", "suspended"))
            if victim == "rollout":
                rollout.kill()
                await rollout.wait()
            elif victim == "suspended":
                tritons[1].suspend()
                await asyncio.sleep(chance.random() * 3)
                tritons[1].resume()
            else:
                one = tritons[victim == "second"]
                one.kill()
                one.start()
    async with process(deployment, triton_urls=urls):
        await deployment.announce(deployment.version(number))
        table = await deployment.routed(f"{number:06d}", seconds=120)
        wanted = {table.champion.model.version, *(one.model.version for one in table.previous)}
        await deployment.leases.renew("one", table.epoch, [table.champion.model.version])
        for client in clients:
            await deployment.serves(client, *wanted, seconds=90)
    new = [one for one in deployment.routes if not one.adopted]
    assert [one.epoch for one in new] == list(range(1, len(new) + 1))
    champions = [one.champion.model.version for one in new]
    assert champions == sorted(set(champions))
    assert not bad & {one.model.version for table in new for one in (table.champion, *table.previous)}
