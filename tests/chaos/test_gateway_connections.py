"""Ten thousand connections that do nothing, and slow ones: an honest caller is answered all the while.

`make test-chaos`. As many connections are opened as this process and the gateway may have, at most 10,000 of each kind;
the test says how many.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from deploy.local import Stack
from headrace.gateway.access_grpc import HANDSHAKE_MS
from headrace.v1.prediction_service_pb2 import PredictRequest
from headrace.v1.prediction_service_pb2_grpc import PredictionServiceStub
from loadtests.machine import resident_bytes
from tests.integration.gateway.deployment import Deployment, GatewayProcess, deploy, event, eventually
from tests.integration.gateway.hostile_frames import PREFACE, opened
from tests.integration.gateway.test_hostile_callers import Steady, beside

CONNECTIONS = 10_000
SPARE = 500
"""Files that this process has open for other things."""
AT_ONCE = 200
IDLE_S = 20

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    stack = Stack()
    started = stack.start_infrastructure()
    yield stack
    if started:
        stack.stop()


@pytest.fixture
async def deployment(stack: Stack, namespace: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    ports = stack.ports
    redis_url = f"redis://127.0.0.1:{ports.redis}/0"
    async with deploy(
        f"127.0.0.1:{ports.kafka}", redis_url, f"127.0.0.1:{ports.triton_grpc}", namespace, tmp_path
    ) as made:
        await made.route("000001", 0.5)
        yield made


@pytest.fixture
def namespace() -> str:
    return f"connections-{time.time_ns():x}"


class Connections:
    """Connections to a gateway, until the block is left."""

    def __init__(self, port: int, sockets: ExitStack) -> None:
        self._port = port
        self._sockets = sockets
        self.open: list[socket.socket] = []

    async def add(self, count: int, content: bytes) -> None:
        """Open more, and send this on each."""
        for first in range(0, count, AT_ONCE):
            await asyncio.gather(
                *(asyncio.to_thread(self._connect, content) for _ in range(min(AT_ONCE, count - first)))
            )

    def _connect(self, content: bytes) -> None:
        one = self._sockets.enter_context(socket.create_connection(("127.0.0.1", self._port), timeout=60))
        one.sendall(content)
        one.setblocking(False)
        self.open.append(one)

    def closed(self) -> int:
        """How many the gateway has closed."""
        return sum(_is_closed(one) for one in self.open)


def _is_closed(one: socket.socket) -> bool:
    try:
        while one.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@asynccontextmanager
async def connections(gateway: GatewayProcess) -> AsyncIterator[Connections]:
    with ExitStack() as sockets:
        yield Connections(gateway.port, sockets)


def open_files(process_id: int) -> int:
    """How many a process has open."""
    return sum(1 for _ in Path(f"/proc/{process_id}/fd").iterdir())


def say(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{line}")


async def new_caller_is_answered(gateway: GatewayProcess, event_id: str) -> None:
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{gateway.port}", options=[("grpc.use_local_subchannel_pool", 1)]
    ) as own:
        stub: Any = PredictionServiceStub(own)
        answer = await stub.Predict(PredictRequest(event=event(event_id)), timeout=30, wait_for_ready=True)
        assert answer.event_id == event_id


async def test_ten_thousand_idle_connections(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(CONNECTIONS, limit - SPARE)
    gateway = await deployment.start(GATEWAY_KAFKA_SCORER=False, GATEWAY_CONNECTION_IDLE_S=IDLE_S)
    before = resident_bytes(gateway.process.pid)
    steady: Steady
    async with connections(gateway) as held, beside(gateway.port) as steady:
        began = time.monotonic()
        await held.add(count, opened())
        opening_s = time.monotonic() - began
        await new_caller_is_answered(gateway, "late")
        kib = (resident_bytes(gateway.process.pid) - before) / 1024 / count
        say(
            f"{count} connections in {opening_s:.1f} s (as many files may be open: {limit}), {kib:.0f} KiB each; "
            f"{held.closed()} closed by then; an honest caller waited {steady.longest_s:.2f} s at the most",
            capsys,
        )
        assert kib < 100

        async def all_closed() -> bool:
            return held.closed() == count

        await eventually(all_closed, "connections without a call are closed", 6 * IDLE_S, every_s=1)
        say(
            f"all closed {time.monotonic() - began:.0f} s after the first was opened; {steady.answered} honest calls, "
            f"the longest {steady.longest_s:.2f} s",
            capsys,
        )
    assert steady.longest_s < 10
    assert await gateway.stop() == 0


async def test_connections_that_never_begin(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    """Silent ones, and those that send the first bytes of HTTP/2 one by one, are closed when their time is over."""
    gateway = await deployment.start(GATEWAY_KAFKA_SCORER=False)
    async with connections(gateway) as silent, connections(gateway) as slow, beside(gateway.port) as steady:
        began = time.monotonic()
        await silent.add(500, b"")
        await slow.add(100, PREFACE[:1])
        sent = 1

        async def all_closed() -> bool:
            nonlocal sent
            for one in slow.open:
                try:
                    one.send(PREFACE[sent : sent + 1])
                except OSError:
                    continue
            sent = min(sent + 1, len(PREFACE) - 2)
            return silent.closed() == 500 and slow.closed() == 100

        await eventually(all_closed, "connections that do not begin are closed", 4 * HANDSHAKE_MS / 1000, every_s=1)
        say(
            f"600 connections that never began were closed within {time.monotonic() - began:.1f} s; an honest caller "
            f"waited {steady.longest_s:.2f} s at the most",
            capsys,
        )
        await new_caller_is_answered(gateway, "new")
    assert await gateway.stop() == 0


async def test_more_connections_than_files_may_be_open(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who is connected is answered meanwhile, and new ones are as soon as others have gone."""
    gateway = await deployment.start(GATEWAY_KAFKA_SCORER=False)
    pid = gateway.process.pid
    async with beside(gateway.port) as steady:
        await steady.some()
        used = open_files(pid)
        hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 100, hard))
        async with connections(gateway) as held:
            await held.add(300, opened())
            await steady.some(200)
        await new_caller_is_answered(gateway, "new")
        say(f"out of files: an honest caller waited {steady.longest_s:.2f} s at the most", capsys)
    assert steady.longest_s < 10
    assert await gateway.stop() == 0
    assert "Traceback" not in gateway.log.read_text()
