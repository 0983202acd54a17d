"""Leases of the gateways in Redis: which route table and which versions each live gateway process uses.

A lease is a key `headrace:{<deployed>}:lease:<instance>` that expires by itself. A set beside it names the instances,
so that reading them does not walk through the keys of the feature state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.exceptions

from headrace.platform.redis import Client, RedisUnavailable

LEASE_TTL_S = 5.0
"""How long a lease lives after it was renewed. Renew it at least three times within."""

# Reads all leases and forgets the instances whose lease has expired, in one step: in two, an instance that comes back
# in between would be forgotten.
_READ = """
local found = {}
for _, instance in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local lease = redis.call('GET', ARGV[1] .. instance)
  if lease then
    found[#found + 1] = instance
    found[#found + 1] = lease
  else
    redis.call('SREM', KEYS[1], instance)
  end
end
return found
"""


@dataclass(frozen=True)
class GatewayLease:
    """What one live gateway process uses.

    Attributes:
        instance: id of the process.
        epoch: epoch of the route table in use.
        versions: versions that requests may still be sent to, of this table and of requests under way.
        unscored: by version, features of recent requests that it gave no finite score for, row by row. These requests
            were refused, so `predictions` does not tell of them.
    """

    instance: str
    epoch: int
    versions: frozenset[str]
    unscored: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)


class Leases:
    """The leases of one deployed pipeline.

    Args:
        client: connection to Redis; stays the caller's.
        deployed: deployed pipeline name.
        ttl_s: how long a lease lives after it was renewed, in seconds.
    """

    def __init__(self, client: Client, deployed: str, *, ttl_s: float = LEASE_TTL_S) -> None:
        self._client = client
        self._prefix = f"headrace:{{{deployed}}}:lease:"
        self._instances = f"headrace:{{{deployed}}}:leases"
        self._ttl_ms = round(ttl_s * 1000)

    async def renew(
        self,
        instance: str,
        epoch: int,
        versions: Iterable[str],
        unscored: Mapping[str, Sequence[Sequence[float]]] | None = None,
    ) -> None:
        """Write the lease of a gateway process: at once when it takes a new table, and every second or so besides.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        # Absent features are NaN, which Python's JSON has.
        value = json.dumps({"epoch": epoch, "versions": sorted(versions), "unscored": dict(unscored or {})})
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.set(self._prefix + instance, value, px=self._ttl_ms)
            pipe.sadd(self._instances, instance)
            try:
                await pipe.execute()
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
                raise RedisUnavailable(f"cannot renew the lease of {instance}: {error}") from error

    async def release(self, instance: str) -> None:
        """Drop the lease of a gateway process that ends.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.delete(self._prefix + instance)
            pipe.srem(self._instances, instance)
            try:
                await pipe.execute()
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
                raise RedisUnavailable(f"cannot release the lease of {instance}: {error}") from error

    async def read(self) -> list[GatewayLease]:
        """All live leases.

        Raises:
            RedisUnavailable: Redis does not answer.
        """
        try:
            found: Any = await self._client.execute_command("EVAL", _READ, 1, self._instances, self._prefix)
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
            raise RedisUnavailable(f"cannot read the leases: {error}") from error
        leases = []
        for instance, value in zip(found[::2], found[1::2], strict=True):
            lease = json.loads(value)
            # Not in the lease of an older gateway.
            unscored = lease.get("unscored", {})
            leases.append(GatewayLease(instance.decode(), lease["epoch"], frozenset(lease["versions"]), unscored))
        return leases
