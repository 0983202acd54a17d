"""A gateway while it and all that it stands on are suspended, stopped and killed: its log has every answer, once.

Minutes long, so not part of `make test`: `make test-chaos`. `HEADRACE_CHAOS_SEED` repeats a run's order of faults,
`HEADRACE_CHAOS_SECONDS` says how long they go on.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.local import Stack
from headrace.platform.kafka import KafkaUnavailable
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_pb2 import ROLE_REPEAT
from tests.chaos.gateway_account import Account, account, table
from tests.chaos.gateway_callers import Callers, calling
from tests.chaos.gateway_faults import FaultsBelow, GatewayFaults
from tests.integration.gateway.deployment import Deployment, deploy, eventually, free_port
from tests.integration.private_triton import PrivateTriton
from tests.private_stack import private_stack

SEED = int(os.environ.get("HEADRACE_CHAOS_SEED") or secrets.randbelow(10**6))
SECONDS = float(os.environ.get("HEADRACE_CHAOS_SECONDS") or 90)
LAST_ANSWER_S = 120.0
LOGGED_S = 180.0
CONTROL_KILLS = 30
SETTINGS: dict[str, Any] = {
    "GATEWAY_REDIS_TIMEOUT_MS": 200,
    "GATEWAY_TRITON_TIMEOUT_MS": 500,
    # Of a process whose number is not used again: soon.
    "GATEWAY_SPOOL_ADOPT_AFTER_S": 2,
}

pytestmark = pytest.mark.timeout(SECONDS + 1200)


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with private_stack() as stack:
        yield stack


@pytest.fixture
async def deployment(private: Stack, tmp_path: Path) -> AsyncIterator[Deployment]:
    async with deploy(
        f"127.0.0.1:{private.ports.kafka}",
        f"redis://127.0.0.1:{private.ports.redis}/0",
        f"127.0.0.1:{private.ports.triton_grpc}",
        f"chaos-{secrets.token_hex(4)}",
        tmp_path,
    ) as made:
        await made.route("000001")
        yield made


@pytest.fixture
def second_triton(tmp_path: Path) -> Iterator[PrivateTriton]:
    server = PrivateTriton(tmp_path / "triton-2")
    server.start()
    yield server
    server.kill()


@asynccontextmanager
async def vectors(deployment: Deployment) -> AsyncIterator[list[str]]:
    """Vectors through Kafka while the block runs: ids of their events."""
    sent: list[str] = []
    stopped = False

    async def send() -> None:
        while not stopped:
            for partition in range(4):
                ids = [f"vector-{partition}-{deployment.vector_offsets[partition] + i}" for i in range(20)]
                await deployment.send_vectors(ids, partition=partition)
                sent.extend(ids)
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(send())
        yield sent
        stopped = True


async def compared(deployment: Deployment, callers: Callers, sent: list[str]) -> Account:
    predictions = await deployment.predictions()
    events = [Event.FromString(one.value).event_id for one in await deployment.records(deployment.topics.events)]
    return account(callers.answers, callers.ingested, sent, predictions, events)


async def until_logged(deployment: Deployment, callers: Callers, sent: list[str]) -> None:
    """Wait until nothing is missing from the log, or for a long time: what then is missing will never come."""
    deadline = time.monotonic() + LOGGED_S
    while time.monotonic() < deadline:
        try:
            found = await compared(deployment, callers, sent)
        except KafkaUnavailable:
            continue
        if not (found.missing or found.vectors_missing or found.events_missing):
            return
        await asyncio.sleep(1)


def lines(callers: Callers, sent: list[str], found: Account) -> list[tuple[str, Any]]:
    repeats = sum(one.role == ROLE_REPEAT for one in callers.answers)
    return [
        ("events answered", len(callers.answers)),
        ("of these, repeats of a first answer", repeats),
        ("degraded", callers.degraded),
        ("refused, and asked again", callers.refused),
        ("streams ended", callers.stream_ends),
        ("failed otherwise", len(callers.failures)),
        ("later than their deadline", len(callers.overdue)),
        ("longest until answered, with all tries", f"{callers.slowest_s:.1f} s"),
        ("vectors", len(sent)),
        ("answers missing in the log", len(found.missing)),
        ("vectors without prediction", len(found.vectors_missing)),
        ("prediction ids doubled", len(found.doubled)),
        ("answers unlike their record", len(found.different)),
        ("events with several first answers", len(found.rivals)),
        ("the same, marked: Redis was away", len(found.marked_rivals)),
        ("ingested events missing", len(found.events_missing)),
        ("ingested events doubled", len(found.events_doubled)),
        ("events ingested and not to be", len(found.events_unknown)),
    ]


async def test_the_log_has_every_answer_once(
    deployment: Deployment, private: Stack, second_triton: PrivateTriton, capsys: pytest.CaptureFixture[str]
) -> None:
    below = FaultsBelow(private, second_triton, deployment.loaded[0], SEED)
    # A Triton that is killed has it no more.
    deployment.loaded.clear()
    await below.load(second_triton.url)
    port = free_port()
    urls = f"127.0.0.1:{private.ports.triton_grpc},{second_triton.url}"
    faults = GatewayFaults(deployment, SETTINGS | {"TRITON_URLS": urls}, port, SEED + 1)
    await faults.start()
    began = time.monotonic()

    def go_on() -> bool:
        return time.monotonic() - began < SECONDS or not (below.deck.all_done and faults.deck.all_done)

    async def strike(what: FaultsBelow | GatewayFaults) -> None:
        while go_on():
            struck_at = time.monotonic() - began
            kind = await what.strike()
            say(f"{struck_at:6.1f} to {time.monotonic() - began:6.1f} s: {kind}")

    async with calling(port, LAST_ANSWER_S) as callers, vectors(deployment) as sent:
        await answered(callers)
        async with asyncio.TaskGroup() as strands:
            strands.create_task(strike(below))
            strands.create_task(strike(faults))
        await faults.ready()
        await answered(callers)
    lasted = time.monotonic() - began
    await until_logged(deployment, callers, sent)
    status = await faults.gateway.stop()
    found = await compared(deployment, callers, sent)
    struck = below.deck.done + faults.deck.done
    with capsys.disabled():
        say(
            table(
                f"\nseed {SEED}, {lasted:.0f} s of faults",
                [("faults", struck), ("ends of the gateway", faults.exits), *lines(callers, sent, found)],
            )
        )
    assert found.wrong == {}, found
    assert callers.failures == []
    assert callers.overdue == []
    assert status == 0
    log = "".join(one.log.read_text() for one in deployment.processes)
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("missing", "command", "settings", "noticed"),
    [
        ("spool", ("headrace.gateway",), {"GATEWAY_DURABLE_LOG": False, "GATEWAY_SPOOL_SHIP_MS": 300}, "missing"),
        ("claim", ("tests.chaos.gateway_without", "claim"), {}, "rivals"),
        ("position", ("tests.chaos.gateway_without", "position"), {}, "doubled"),
    ],
)
async def test_what_is_taken_out_is_missed(
    deployment: Deployment,
    capsys: pytest.CaptureFixture[str],
    missing: str,
    command: tuple[str, ...],
    settings: dict[str, Any],
    noticed: str,
) -> None:
    """The control: what the test above finds nothing of is found when a part of what keeps the log is taken out."""
    port = free_port()
    settings = SETTINGS | {"GATEWAY_GRPC_PORT": port, "GATEWAY_KAFKA_SCORER": False} | settings
    gateway = await deployment.start(command=command, **settings)
    found, kills = Account(), 0
    async with calling(port, LAST_ANSWER_S) as callers:
        while noticed not in found.wrong:
            assert kills < CONTROL_KILLS, f"nothing is wrong after {kills} kills"
            await answered(callers)
            await gateway.kill()
            before = list(callers.answers)
            kills += 1
            gateway = await deployment.start(command=command, **settings)
            # What the new process answers behind it is in the log later than all that it found in the spool.
            await answered(callers)
            last = callers.answers[-1].prediction_id

            async def is_logged(last: str = last) -> bool:
                return last in {one.prediction_id for one in await deployment.predictions()}

            await eventually(is_logged, "the last answer is logged", 60, every_s=0.3)
            events = [
                Event.FromString(one.value).event_id for one in await deployment.records(deployment.topics.events)
            ]
            found = account(before, callers.ingested, [], await deployment.predictions(), events)
    with capsys.disabled():
        say(table(f"\nwithout the {missing}, {kills} kills", [*lines(callers, [], found)]))
    await gateway.stop()
    assert found.wrong[noticed]


async def answered(callers: Callers, count: int = 200) -> None:
    """Wait until so many more events have their answers."""
    before = len(callers.answers)

    async def enough() -> bool:
        return len(callers.answers) >= before + count

    await eventually(enough, f"{count} more answers", 120)


def say(line: str) -> None:
    """For whoever watches: run pytest with `-s`."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
