"""Faults for gateway processes on one port and for what they stand on: stopped, suspended and killed, two at a time."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import tritonclient.grpc.aio as triton_grpc

from deploy.local import Stack, StackError
from headrace.platform.triton_config import MODEL_FILE, triton_model_config
from tests.integration.gateway.callers import pids, said
from tests.integration.gateway.deployment import WIDTH, Deployment, GatewayProcess, eventually, model_file
from tests.integration.private_triton import PrivateTriton

PROCESSES = 2
READY_S = 240.0
BACK_S = 120.0
SUSPENDED_S = (0.5, 4.0)
PAUSE_S = (0.2, 2.0)

BELOW = [
    "Triton 1 kill -9",
    "Triton 2 kill -9",
    "Triton 1 SIGSTOP",
    "Triton 2 SIGSTOP",
    "both Tritons SIGSTOP",
    "Redis kill -9",
    "Redis SIGSTOP",
    "Kafka kill -9",
    "Kafka SIGSTOP",
]
GATEWAY = [
    "process kill -9",
    "process kill -9",
    "process SIGTERM",
    "process SIGSTOP",
    "SIGHUP",
    "gateway kill -9",
    "gateway SIGTERM",
]


class Deck:
    """Kinds of faults in an order that a seed decides; each comes once before any comes again."""

    def __init__(self, kinds: list[str], seed: int) -> None:
        self.random = random.Random(seed)
        self._kinds = kinds
        self._left: list[str] = []
        self.done: Counter[str] = Counter()

    @property
    def all_done(self) -> bool:
        """Whether each kind has happened."""
        return self.done.keys() >= set(self._kinds)

    def next(self) -> str:
        """The next one."""
        if not self._left:
            self._left = list(self._kinds)
            self.random.shuffle(self._left)
        return self._left.pop()


async def back(stack: Stack, program: str, killed: int, within_s: float) -> None:
    """Wait until a program that was killed has another process, which is ready."""

    async def replaced() -> bool:
        try:
            if await asyncio.to_thread(stack.process_id, program) == killed:
                return False
        except StackError:
            return False
        lines = await asyncio.to_thread(stack.status)
        return any(line.name == program and line.ready for line in lines)

    await eventually(replaced, f"{program} is back", within_s, every_s=0.2)


class FaultsBelow:
    """Strikes at Kafka, Redis and two Triton servers, one after the other.

    Args:
        stack: a private one; its Triton is the first.
        second: the second Triton, started.
        model: name of the Triton model that both have.
        seed: decides the order and how long each fault lasts.
    """

    def __init__(self, stack: Stack, second: PrivateTriton, model: str, seed: int) -> None:
        self._stack = stack
        self._second = second
        self._model = model
        self.deck = Deck(BELOW, seed)

    async def load(self, url: str) -> None:
        """Give a Triton server its model, as rollout does."""
        client = triton_grpc.InferenceServerClient(url)

        async def loaded() -> bool:
            try:
                await client.load_model(
                    self._model, config=triton_model_config(self._model, WIDTH), files={MODEL_FILE: model_file(0.0)}
                )
            except triton_grpc.InferenceServerException:
                return False
            return True

        try:
            await eventually(loaded, f"Triton at {url} takes the model", BACK_S, every_s=0.2)
        finally:
            await client.close()

    async def strike(self) -> str:
        """The next fault, until what it struck is back; what it was."""
        kind = self.deck.next()
        await asyncio.sleep(self.deck.random.uniform(*PAUSE_S))
        match kind:
            case "Triton 2 kill -9":
                await asyncio.to_thread(self._second.kill)
                await asyncio.sleep(self.deck.random.uniform(*PAUSE_S))
                self._second.start()
                await self.load(self._second.url)
            case "Triton 2 SIGSTOP":
                await self._suspended(self._second.suspend, self._second.resume)
            case "both Tritons SIGSTOP":
                first = await asyncio.to_thread(self._stack.process_id, "triton")

                def stop() -> None:
                    os.kill(first, signal.SIGSTOP)
                    self._second.suspend()

                def go_on() -> None:
                    os.kill(first, signal.SIGCONT)
                    self._second.resume()

                await self._suspended(stop, go_on)
            case _:
                await self._in_stack(kind)
        self.deck.done[kind] += 1
        return kind

    async def _in_stack(self, kind: str) -> None:
        program = kind.split(maxsplit=1)[0].lower()
        struck = await asyncio.to_thread(self._stack.process_id, program)
        if kind.endswith("SIGSTOP"):
            await self._suspended(lambda: os.kill(struck, signal.SIGSTOP), lambda: os.kill(struck, signal.SIGCONT))
            return
        os.kill(struck, signal.SIGKILL)
        await back(self._stack, program, struck, BACK_S)
        if program == "triton":
            await self.load(f"127.0.0.1:{self._stack.ports.triton_grpc}")

    async def _suspended(self, stop: Callable[[], None], go_on: Callable[[], None]) -> None:
        stop()
        try:
            await asyncio.sleep(self.deck.random.uniform(*SUSPENDED_S))
        finally:
            go_on()


class GatewayFaults:
    """Strikes at the processes of a gateway, and waits until all are ready again.

    Args:
        deployment: starts it again.
        settings: of the gateway.
        port: that it has, also after a restart.
        seed: decides the order, the victims, and how long each fault lasts.
    """

    def __init__(self, deployment: Deployment, settings: dict[str, Any], port: int, seed: int) -> None:
        self._deployment = deployment
        self._settings = settings | {"GATEWAY_PROCESSES": PROCESSES, "GATEWAY_GRPC_PORT": port}
        self.gateway: GatewayProcess
        self.deck = Deck(GATEWAY, seed)
        self.exits: Counter[str] = Counter()

    async def start(self) -> None:
        """Start the gateway."""
        self.gateway = await self._deployment.start(wait_ready=False, **self._settings)
        await self.ready()

    async def ready(self) -> None:
        """Wait until all processes are."""
        await self.gateway.ready(READY_S)

    async def strike(self) -> str:
        """The next fault, until all is well again; what it was."""
        kind = self.deck.next()
        await asyncio.sleep(self.deck.random.uniform(*PAUSE_S))
        own = list(pids(self.gateway).values())[-PROCESSES:]
        match kind.split():
            case ["process", "SIGSTOP"]:
                victim = self.deck.random.choice(own)
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGSTOP)
                    await asyncio.sleep(self.deck.random.uniform(*SUSPENDED_S))
                    os.kill(victim, signal.SIGCONT)
            case ["process", *how]:
                with suppress(ProcessLookupError):
                    os.kill(self.deck.random.choice(own), signal.SIGTERM if how == ["SIGTERM"] else signal.SIGKILL)
            case ["gateway", *how]:
                if how == ["SIGTERM"]:
                    self.exits[f"status {await self.gateway.stop()}"] += 1
                else:
                    for pid in (self.gateway.process.pid, *own):
                        with suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    await self.gateway.kill()
                await self.start()
            case _:
                await self._replace()
        await self.ready()
        self.deck.done[kind] += 1
        return kind

    async def _replace(self) -> None:
        def ends() -> int:
            return sum(
                len(said(self.gateway, end))
                for end in ("gateway processes replaced", "the gateway processes are not all replaced")
            )

        before = ends()
        self.gateway.process.send_signal(signal.SIGHUP)

        async def over() -> bool:
            return ends() > before

        await eventually(over, "the processes are replaced", READY_S, every_s=0.2)
