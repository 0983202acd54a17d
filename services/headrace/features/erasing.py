"""Erasing what is kept of one entity, a person say, in all definitions' states of a deployed pipeline."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.features.erasures import ERASURES, erased_name
from headrace.features.stored_states import fingerprints
from headrace.platform.feature_state import REWRITTEN, StateKeys, deployed_prefix
from headrace.v1.prediction_pb2 import Prediction

if TYPE_CHECKING:
    from redis.asyncio import Redis

ANSWERS = "answer:"
"""How the keys of the answers begin that gateways give to repeats of an event, behind the pipeline's prefix."""
BATCH = 1000

# KEYS: erased ids, then for each state its sources, event log and label log. ARGV: name of the id, time, names of the
# fields that count erasures and rewrites. It counts as a rewrite, so a worker that has read a log before notices; and a
# worker that has not heard of the erasure cannot append (see `state_writer`), so nothing comes back behind it.
ERASE = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local logs, bytes = 0, 0
for i = 2, #KEYS, 3 do
  bytes = bytes + redis.call('STRLEN', KEYS[i + 1]) + redis.call('STRLEN', KEYS[i + 2])
  local found = redis.call('UNLINK', KEYS[i + 1], KEYS[i + 2])
  redis.call('HINCRBY', KEYS[i], ARGV[3], 1)
  if found > 0 then redis.call('HINCRBY', KEYS[i], ARGV[4], found) end
  logs = logs + found
end
return {logs, bytes}
"""


@dataclass(frozen=True)
class Erased:
    """What was erased.

    Attributes:
        states: how many states there are.
        logs: how many event logs and label logs were deleted.
        bytes: their size.
    """

    states: int
    logs: int
    bytes: int


async def erase(client: Redis, deployed: str, entity: str, entity_id: str) -> Erased:
    """Delete the logs of an id in all states, at one moment, and remember that what came before must not come back.

    Safe while workers run, and to be repeated.

    Args:
        client: connection, bytes undecoded.
        deployed: name of the deployed pipeline.
        entity: name of the entity.
        entity_id: its id, as events have it.

    Raises:
        redis.RedisError: Redis did not answer; what took effect is not known.
    """
    states = [StateKeys(deployed, fingerprint) for fingerprint in await fingerprints(client, deployed)]
    names = [StateKeys(deployed, 0).erased]
    for keys in states:
        names += [keys.sources, keys.event_log(entity) + entity_id, keys.label_log(entity) + entity_id]
    arguments: list[Any] = [erased_name(entity, entity_id), time.time_ns() // 1000, ERASURES, REWRITTEN]
    found: Any = await client.eval(ERASE, len(names), *names, *arguments)
    return Erased(len(states), int(found[0]), int(found[1]))


async def erase_answers(client: Redis, deployed: str, position: int, entity_id: str) -> int:
    """Delete the remembered answers to events of an id; how many they were.

    A repeat of such an event gets an answer of its own afterwards.

    Args:
        client: connection, bytes undecoded.
        deployed: name of the deployed pipeline.
        position: of the entity among the pipeline's entities.
        entity_id: its id, as events have it.

    Raises:
        redis.RedisError: Redis did not answer; running it again goes on.
    """
    deleted = 0
    async for names in _answer_names(client, deployed):
        records: list[Any] = await client.mget(names)
        found = [
            name
            for name, record in zip(names, records, strict=True)
            if record and list(Prediction.FromString(record).entities[position : position + 1]) == [entity_id]
        ]
        if found:
            deleted += await client.unlink(*found)
    return deleted


async def _answer_names(client: Redis, deployed: str) -> AsyncIterator[list[bytes]]:
    cursor = -1
    while cursor:
        scanned: Any = await client.scan(max(cursor, 0), match=f"{deployed_prefix(deployed)}{ANSWERS}*", count=BATCH)
        cursor, names = scanned
        if names:
            yield names
