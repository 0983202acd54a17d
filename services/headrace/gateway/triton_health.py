"""Looks after the Triton servers of a pool: checks versions, finds out who is away, and brings them back by a trial."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from headrace.gateway.metrics import TRITON_AWAY, TRITON_EJECTIONS, TRITON_MISMATCHES, TRITON_OUTSTANDING
from headrace.gateway.triton_balancing import Balancer, BalancingPolicy, Member
from headrace.gateway.triton_errors import (
    ModelMismatchError,
    ModelNotLoadedError,
    TritonAwayError,
    TritonError,
    TritonTimeoutError,
)
from headrace.gateway.triton_metadata import check_declared
from headrace.gateway.triton_server import TritonServer
from headrace.gateway.triton_statistics import ServerStatistics
from headrace.platform.logging import get_logger
from headrace.platform.triton_config import FeatureIdentity

# Models that nobody has asked for during this time are forgotten.
_FORGET_S = 60.0
# Versions that a server is checked for before it is back; the others are checked when they are asked for.
_TRIALS = 4
_REMEMBERED = 64
# How long a look may take at least, in seconds: a server that is busy for a moment is not away.
_LOOK_S = 2.0


@dataclass(eq=False)
class _Connected:
    server: TritonServer
    statistics: ServerStatistics
    checks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    look_at: float = 0.0


class TritonHealth:
    """The servers and what is known of them.

    Args:
        urls: gRPC addresses, host:port.
        timeout_s: how long a call may take, in seconds.
        probe_s: the first rest of a server that is away, in seconds.
        health_s: time between two looks at a server that answers, in seconds.
        keepalive_s: time between two pings on a quiet connection, in seconds; 0 sends none.
        statistics_s: time between two readings of Triton's own times, in seconds; 0 reads none.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_s: float,
        probe_s: float,
        health_s: float,
        keepalive_s: float,
        statistics_s: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.balancer = Balancer(urls, BalancingPolicy(rest_s=probe_s), self._loop.time)
        self._connected = {
            member: _Connected(TritonServer(member.name, keepalive_s=keepalive_s), ServerStatistics(member.name))
            for member in self.balancer.members
        }
        self._timeout_s = timeout_s
        self._probe_s = probe_s
        self._health_s = health_s
        self._statistics_s = statistics_s
        # The versions that were asked for lately and what they take, the newest last.
        self._asked: dict[str, FeatureIdentity] = {}
        self._failed = asyncio.Event()
        for member in self.balancer.members:
            TRITON_OUTSTANDING.labels(member.name).set_function(_outstanding(member))
        self._count()

    @property
    def away(self) -> list[str]:
        """Servers that nothing is sent to now."""
        return [member.name for member in self.balancer.members if member.rest.resting]

    def server(self, member: Member) -> TritonServer:
        """The connection of a server."""
        return self._connected[member].server

    def asked_for(self, model: str, expected: FeatureIdentity) -> None:
        """A version is in use: servers that come back are tried with it."""
        if self._asked.get(model) is not expected:
            self._asked.pop(model, None)
            self._asked[model] = expected
            if len(self._asked) > _REMEMBERED:
                del self._asked[next(iter(self._asked))]

    def eject(self, member: Member, reason: str, detail: str) -> None:
        """Send nothing more to a server until a trial call succeeds; calls under way to one that is away are given up.

        Args:
            member: the server.
            reason: "away" or "slow"; the last server that answers is never too slow.
            detail: for the log.
        """
        if member.rest.resting or (reason == "slow" and not self.balancer.others_serve(member)):
            return
        self.balancer.eject(member, reason)
        TRITON_EJECTIONS.labels(member.name, reason).inc()
        get_logger().warning(f"Triton is {reason}", url=member.name, reason=detail)
        if reason == "away":
            self.server(member).abort()
        self._failed.set()
        self._count()

    def model_failed(self, member: Member, model: str, error: TritonError) -> None:
        """A model gave no scores on a server that answers: it rests there when missing, wrong, or failing often."""
        at_once = isinstance(error, ModelNotLoadedError | ModelMismatchError)
        if self.balancer.model_failed(self.balancer.model(member, model), error, at_once=at_once):
            self._failed.set()
            self._count()

    async def check(self, member: Member, model: str, expected: FeatureIdentity) -> None:
        """Compare a model on a server with the version that is meant; those who come meanwhile share the check.

        Raises:
            ModelMismatchError: it is another one.
            TritonError: the server does not say.
        """
        checks = self._connected[member].checks
        check = checks.get(model)
        if check is None:
            check = checks[model] = asyncio.create_task(self._check(member, model, expected), name=f"check-{model}")
            check.add_done_callback(lambda done: _checked(checks, model, done))
        # Shielded: one caller that is cancelled does not stop what others wait for.
        await asyncio.shield(check)

    async def _check(self, member: Member, model: str, expected: FeatureIdentity) -> None:
        declared = await self.server(member).declared(model, self._timeout_s)
        known = self.balancer.model(member, model)
        try:
            check_declared(model, declared, expected)
        except ModelMismatchError as error:
            fault = f"Triton at {member.name}: {error}"
            # Once, not each time that it is looked at again.
            if str(known.fault) != fault:
                get_logger().error("a Triton server has another model under this name", reason=fault)
            raise ModelMismatchError(fault) from None
        known.checked = expected

    async def run(self) -> None:
        """Look after the servers until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_health(), name="triton-health")
            for member in self.balancer.members:
                tasks.create_task(self._watch_connection(member), name=f"triton-connection-{member.name}")
            if self._statistics_s:
                tasks.create_task(self._read_statistics(), name="triton-statistics")

    async def close(self) -> None:
        """Close the connections."""
        for member, one in self._connected.items():
            checks = list(one.checks.values())
            for check in checks:
                check.cancel()
            await asyncio.gather(*checks, return_exceptions=True)
            one.statistics.close()
            await one.server.close()
            TRITON_OUTSTANDING.labels(member.name).set_function(_nothing)

    async def _watch_health(self) -> None:
        while True:
            resting = any(
                member.rest.resting or any(one.rest.resting for one in member.models.values())
                for member in self.balancer.members
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(self._probe_s if resting else self._health_s):
                    await self._failed.wait()
            self._failed.clear()
            self.balancer.forget_unused(_FORGET_S)
            async with asyncio.TaskGroup() as tasks:
                for member in self.balancer.members:
                    if member.rest.is_due():
                        tasks.create_task(self._probe(member))
                    elif not member.rest.resting:
                        tasks.create_task(self._look(member))
            self._count()

    async def _look(self, member: Member) -> None:
        """At a server that answers, also when nobody asks it; and again at its models that rest."""
        connected = self._connected[member]
        if self._loop.time() >= connected.look_at:
            connected.look_at = self._loop.time() + self._health_s
            if not await connected.server.is_ready(max(self._timeout_s, _LOOK_S)):
                self.eject(member, "away", "it does not say that it is ready")
                return
        for name, known in list(member.models.items()):
            if known.rest.is_due():
                try:
                    await self._trial(member, name, self._asked.get(name))
                except TritonError as error:
                    # The server said that it is ready, whatever becomes of this version.
                    known.fault = error
                    known.rest.begin()

    async def _probe(self, member: Member) -> None:
        """A server that rests is back when it is ready and answers a trial call."""
        if not await self.server(member).is_ready(self._timeout_s):
            self._still_away(member, "it does not say that it is ready")
            return
        tried = list(reversed(self._asked))[:_TRIALS]
        silent = []
        for name in tried:
            try:
                await self._trial(member, name, self._asked.get(name))
            except TritonTimeoutError as error:
                # One version that hangs does not keep the server from the others.
                silent.append(str(error))
                self.balancer.model_failed(self.balancer.model(member, name), error, at_once=True)
            except TritonAwayError as error:
                self._still_away(member, str(error))
                return
            except TritonError as error:
                # The server answers. That it lacks a version keeps it from that one alone.
                self.model_failed(member, name, error)
        if tried and len(silent) == len(tried):
            self._still_away(member, silent[0])
            return
        self.balancer.back(member)
        get_logger().info("Triton is back", url=member.name)

    def _still_away(self, member: Member, detail: str) -> None:
        member.rest.begin()
        member.models.clear()
        get_logger().debug("Triton is still away", url=member.name, reason=detail)

    async def _trial(self, member: Member, model: str, expected: FeatureIdentity | None) -> None:
        if expected is None:
            return
        await self.check(member, model, expected)
        await self.server(member).infer(model, np.zeros((1, expected.width), np.float32), self._timeout_s)
        known = self.balancer.model(member, model)
        known.fault = None
        known.rest.end()

    async def _watch_connection(self, member: Member) -> None:
        """Another connection may lead to another process: its models are checked again before the next row."""
        while True:
            await self.server(member).connection_lost()
            for known in member.models.values():
                known.checked = None

    async def _read_statistics(self) -> None:
        while True:
            for member, one in self._connected.items():
                if not member.rest.resting:
                    with suppress(TritonError):
                        one.statistics.update(await one.server.statistics(self._timeout_s), self._asked)
            await asyncio.sleep(self._statistics_s)

    def _count(self) -> None:
        members = self.balancer.members
        TRITON_AWAY.set(len(self.away) / len(members))
        for member in members:
            refused = [one for one in member.models.values() if isinstance(one.fault, ModelMismatchError)]
            TRITON_MISMATCHES.labels(member.name).set(len(refused))


def _checked(checks: dict[str, asyncio.Task[None]], model: str, done: asyncio.Task[None]) -> None:
    del checks[model]
    if not done.cancelled():
        # Taken, so that nobody is warned of an exception that all callers left before they saw it.
        done.exception()


def _outstanding(member: Member) -> Callable[[], float]:
    return lambda: member.outstanding_rows


def _nothing() -> float:
    return 0.0
