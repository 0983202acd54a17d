"""Leases of gateways in a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from headrace.platform.leases import GatewayLease, Leases
from headrace.platform.redis import Client, RedisUnavailable, connect


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Client]:
    connected = connect(redis_url)
    yield connected
    await connected.aclose()


async def test_a_lease_lives_until_it_is_released(client: Client, namespace: str) -> None:
    leases = Leases(client, namespace)
    assert await leases.read() == []
    await leases.renew("one", 3, ["000002", "000001"])
    await leases.renew("two", 2, [])
    await leases.renew("two", 3, ["000002"], {"000002": [[1.5, -2.0]]})
    assert sorted(await leases.read(), key=lambda lease: lease.instance) == [
        GatewayLease("one", 3, frozenset({"000001", "000002"})),
        GatewayLease("two", 3, frozenset({"000002"}), {"000002": [[1.5, -2.0]]}),
    ]
    assert await Leases(client, f"{namespace}-other").read() == []
    await leases.release("one")
    await leases.release("two")
    assert await leases.read() == []
    assert not await client.exists(f"headrace:{{{namespace}}}:leases")


async def test_a_lease_that_is_not_renewed_ends(client: Client, namespace: str) -> None:
    leases = Leases(client, namespace, ttl_s=0.05)
    await leases.renew("one", 1, [])
    key = f"headrace:{{{namespace}}}:lease:one"
    async with asyncio.timeout(5):
        while await client.exists(key):  # noqa: ASYNC110 (Redis ends it)
            await asyncio.sleep(0.01)
    assert await leases.read() == []
    # And its instance is forgotten, so that instances that come and go do not pile up.
    assert not await client.exists(f"headrace:{{{namespace}}}:leases")


async def test_a_redis_that_is_away_is_said_so() -> None:
    client = connect("redis://127.0.0.1:1/0")
    leases = Leases(client, "fraud")
    for call in (leases.read(), leases.renew("one", 1, []), leases.release("one")):
        with pytest.raises(RedisUnavailable):
            await call
    await client.aclose()
