"""Keeps this process's lease in Redis: which route table and versions it uses, and rows that got no score."""

from __future__ import annotations

import asyncio

from headrace.gateway.circuit_breaker import CircuitBreaker
from headrace.gateway.routing import Routing
from headrace.gateway.unscored_rows import UnscoredRows
from headrace.platform.leases import Leases
from headrace.platform.logging import get_logger
from headrace.platform.redis import RedisUnavailable

INTERVAL_S = 1.0
TIMEOUT_S = 1.0


class LeaseRenewal:
    """Renews the lease every second, and at once with a new table.

    Args:
        leases: of the deployed pipeline.
        instance: name of this process.
        routing: says what is in use.
        breaker: of this Redis: a renewal that succeeds says that it is back.
        unscored: rows that got no finite score.
    """

    def __init__(
        self, leases: Leases, instance: str, routing: Routing, breaker: CircuitBreaker, unscored: UnscoredRows
    ) -> None:
        self._leases = leases
        self._instance = instance
        self._routing = routing
        self._breaker = breaker
        self._unscored = unscored
        self._failed = False

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            changed = asyncio.ensure_future(self._routing.changed())
            try:
                if self._routing.has_table:
                    await self._renew()
                await asyncio.wait({changed}, timeout=INTERVAL_S)
            finally:
                changed.cancel()

    async def release(self) -> None:
        """Drop the lease; one that cannot be dropped expires by itself."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._leases.release(self._instance)
        except (RedisUnavailable, TimeoutError) as error:
            get_logger().info("lease not released", reason=str(error))

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._leases.renew(
                    self._instance, self._routing.epoch, self._routing.versions_in_use(), self._unscored.by_version()
                )
        except (RedisUnavailable, TimeoutError) as error:
            if not self._failed:
                get_logger().warning("lease not renewed", reason=str(error))
            self._failed = True
        else:
            if self._failed:
                get_logger().info("lease renewed again")
            self._failed = False
            self._breaker.succeeded()
