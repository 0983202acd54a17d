"""What each state of a deployed pipeline was made by: the definition as plain data, kept beside the state."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.features.stored_states import DEFINITION, fingerprints
from headrace.pipeline.description import describe_pipeline
from headrace.platform.feature_state import StateKeys

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from headrace.pipeline import Pipeline


@dataclass(frozen=True)
class DescribedState:
    """A state and the definition that its worker was last started with.

    Attributes:
        fingerprint: of the features.
        definition: name of the definition, empty for the first.
        described: what `describe_pipeline` gave; None for a state of a worker that did not say.
    """

    fingerprint: int
    definition: str
    described: dict[str, Any] | None


async def store_description(client: Redis, keys: StateKeys, pipeline: Pipeline) -> None:
    """Keep the definition beside its state; `delete_state` deletes it with the state.

    Raises:
        redis.RedisError: Redis did not answer.
    """
    await client.set(_key(keys), json.dumps(describe_pipeline(pipeline), sort_keys=False))


async def read_descriptions(client: Redis, deployed: str) -> list[DescribedState]:
    """The definitions of all states of a deployed pipeline. Goes over all keys of the Redis, a thousand at a time.

    Raises:
        redis.RedisError: Redis did not answer.
    """
    found = []
    for fingerprint in await fingerprints(client, deployed):
        keys = StateKeys(deployed, fingerprint)
        stored: Any = await client.get(_key(keys))
        name: Any = await client.hget(keys.sources, DEFINITION)
        described = None if stored is None else json.loads(stored)
        found.append(DescribedState(fingerprint, (name or b"").decode(), described))
    return found


def _key(keys: StateKeys) -> str:
    return f"{keys.prefix}:description"
