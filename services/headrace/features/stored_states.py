"""The feature states of a deployed pipeline, one for each definition that was ever run: listing and deleting them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.features.cut_over import BACKFILL, RUNNING
from headrace.features.trimming import safe_time
from headrace.platform.feature_state import deployed_prefix

if TYPE_CHECKING:
    from redis.asyncio import Redis

BATCH = 1000
DEFINITION = "definition"
"""Field of the sources hash: name of the definition whose worker made the state."""

FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class StoredState:
    """One state.

    Attributes:
        fingerprint: of the features it was made for.
        definition: name of the definition; None where nothing says.
        logs: number of event logs and label logs.
        bytes: size of all logs.
        newest_us: production time of the newest merged record in microseconds; 0 for none.
        safe_us: event time that every partition has left behind, in microseconds; 0 for none.
        unfinished: whether it is being backfilled.
    """

    fingerprint: int
    definition: str | None
    logs: int
    bytes: int
    newest_us: int
    safe_us: int
    unfinished: bool


async def fingerprints(client: Redis, deployed: str) -> list[int]:
    """Features fingerprints of all states of a deployed pipeline."""
    found = set()
    prefix = deployed_prefix(deployed)
    for suffix in ("sources", "fences"):
        async for name in client.scan_iter(f"{prefix}*:{suffix}", BATCH):
            text = name.decode().removeprefix(prefix).removesuffix(f":{suffix}")
            if FINGERPRINT.fullmatch(text):
                found.add(int(text, 16))
    return sorted(found)


async def list_states(client: Redis, deployed: str) -> list[StoredState]:
    """All states of a deployed pipeline. Goes over all keys of the Redis, a thousand at a time.

    Raises:
        redis.RedisError: Redis did not answer.
    """
    return [await _read(client, deployed, fingerprint) for fingerprint in await fingerprints(client, deployed)]


async def delete_state(client: Redis, deployed: str, fingerprint: int) -> int:
    """Delete all keys of a state; how many they were. Nobody may be writing to it.

    Raises:
        redis.RedisError: Redis did not answer; running it again goes on.
    """
    deleted = 0
    # What says that there is a state goes last, so that an interrupted deletion can be found and repeated.
    async for names in _names(client, f"{_prefix(deployed, fingerprint)}:[el]:*"):
        deleted += await client.unlink(*names)
    async for names in _names(client, f"{_prefix(deployed, fingerprint)}:*"):
        deleted += await client.unlink(*names)
    return deleted


async def _read(client: Redis, deployed: str, fingerprint: int) -> StoredState:
    prefix = _prefix(deployed, fingerprint)
    stored: Any = await client.hgetall(f"{prefix}:sources")
    newest: Any = await client.get(f"{prefix}:newest")
    sources = {name.decode(): value.decode() for name, value in stored.items()}
    logs = size = 0
    async for names in _names(client, f"{prefix}:[el]:*"):
        async with client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.strlen(name)
            size += sum(await pipe.execute())
        logs += len(names)
    return StoredState(
        fingerprint,
        sources.get(DEFINITION),
        logs,
        size,
        int(newest or 0),
        safe_time(sources),
        sources.get(BACKFILL) == RUNNING,
    )


async def _names(client: Redis, pattern: str) -> AsyncIterator[list[bytes]]:
    cursor = -1
    while cursor:
        scanned: Any = await client.scan(max(cursor, 0), match=pattern, count=BATCH)
        cursor, names = scanned
        if names:
            yield names


def _prefix(deployed: str, fingerprint: int) -> str:
    return f"{deployed_prefix(deployed)}{fingerprint:016x}"
