"""Erasing what is kept of one entity, a person say, in all definitions' states of a deployed pipeline."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.features.erasures import ERASURES, erased_name
from headrace.features.state_writer import REWRITTEN
from headrace.features.stored_states import fingerprints
from headrace.platform.feature_state import StateKeys

if TYPE_CHECKING:
    from redis.asyncio import Redis

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
