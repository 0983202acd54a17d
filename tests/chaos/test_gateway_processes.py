"""Gateway processes on one port under kills, suspensions and rolling restarts, calls and vectors: nothing is missing.

Minutes long, so not part of `make test`: `make test-chaos`. `HEADRACE_CHAOS_SEED` repeats a run's order of faults,
`HEADRACE_CHAOS_SECONDS` says how long they go on.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.local import Stack
from headrace.v1.prediction_pb2 import ROLE_ANSWER
from tests.integration.gateway.callers import Load, load, pids, said
from tests.integration.gateway.deployment import Deployment, GatewayProcess, deploy, eventually

SEED = int(os.environ.get("HEADRACE_CHAOS_SEED") or secrets.randbelow(10**6))
SECONDS = float(os.environ.get("HEADRACE_CHAOS_SECONDS") or 90)
PROCESSES = 2
SUSPENDED_S = 2.0
READY_S = 180.0
FAULTS = ("replace", "kill", "suspend", "kill the one that watches")

pytestmark = pytest.mark.timeout(SECONDS + 600)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    stack = Stack()
    started = stack.start_infrastructure()
    yield stack
    if started:
        stack.stop()


@pytest.fixture
async def deployment(stack: Stack, tmp_path: Path) -> AsyncIterator[Deployment]:
    async with deploy(
        f"127.0.0.1:{stack.ports.kafka}",
        f"redis://127.0.0.1:{stack.ports.redis}/0",
        f"127.0.0.1:{stack.ports.triton_grpc}",
        f"chaos-{secrets.token_hex(4)}",
        tmp_path,
    ) as made:
        yield made


class Faults:
    """Strikes at the processes of a gateway, and waits until all is well again."""

    def __init__(self, deployment: Deployment, gateway: GatewayProcess) -> None:
        self.gateway = gateway
        self._port = gateway.port
        self.struck: Counter[str] = Counter()
        self._deployment = deployment
        self._random = random.Random(SEED)

    async def strike(self) -> None:
        kind = self._random.choice(FAULTS)
        self.struck[kind] += 1
        own = list(pids(self.gateway).values())[-PROCESSES:]
        match kind:
            case "replace":
                before = len(said(self.gateway, "gateway processes replaced"))
                self.gateway.process.send_signal(signal.SIGHUP)

                async def replaced() -> bool:
                    return len(said(self.gateway, "gateway processes replaced")) > before

                await eventually(replaced, "the processes are replaced", 120)
            case "kill":
                with suppress(ProcessLookupError):
                    os.kill(self._random.choice(own), signal.SIGKILL)
            case "suspend":
                victim = self._random.choice(own)
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGSTOP)
                    await asyncio.sleep(SUSPENDED_S)
                    os.kill(victim, signal.SIGCONT)
            case _:
                await self.gateway.kill()
                self.gateway = await self._deployment.start(
                    wait_ready=False, GATEWAY_PROCESSES=PROCESSES, GATEWAY_GRPC_PORT=self._port
                )
        await self.gateway.ready(READY_S)


async def test_nothing_is_missing_or_doubled(deployment: Deployment) -> None:
    await deployment.route("000001")
    faults = Faults(deployment, await deployment.start(wait_ready=False, GATEWAY_PROCESSES=PROCESSES))
    await faults.gateway.ready(READY_S)
    vectors: list[str] = []

    async def send_vectors(callers: Load) -> None:
        while not callers.stopped:
            for partition in range(4):
                ids = [f"vector-{partition}-{deployment.vector_offsets[partition] + i}" for i in range(20)]
                await deployment.send_vectors(ids, partition=partition)
                vectors.extend(ids)
            await asyncio.sleep(0.1)

    began = time.monotonic()
    async with load(faults.gateway.port) as callers, asyncio.TaskGroup() as more:
        more.create_task(send_vectors(callers))
        while time.monotonic() - began < SECONDS:
            await callers.more()
            await faults.strike()
        await callers.more()
        callers.stopped = True
    assert callers.failures == []
    expected = {*callers.answers, *vectors}

    async def all_logged() -> bool:
        return {one.event_id for one in await deployment.predictions()} >= expected

    await eventually(all_logged, "every answer is logged", 120, every_s=1)
    assert await faults.gateway.stop() == 0
    predictions = await deployment.predictions()
    answers = Counter(one.event_id for one in predictions if one.role == ROLE_ANSWER)
    assert {event_id: n for event_id, n in answers.items() if n != 1} == {}
    assert set(answers) >= expected
    ids = Counter(one.prediction_id for one in predictions)
    assert {one: n for one, n in ids.items() if n != 1} == {}
    print(  # noqa: T201
        f"seed {SEED}: {len(callers.answers)} calls, {len(vectors)} vectors, {dict(faults.struck)}, "
        f"streams ended {dict(callers.stream_ends)}"
    )
