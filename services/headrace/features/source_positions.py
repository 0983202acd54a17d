"""Where to read on after a start or a rebalance: from what Redis holds and what Kafka has committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.features.errors import StateUnusableError
from headrace.features.event_merging import NOTHING_MERGED, decode_source
from headrace.features.time_guard import TimeGuard
from headrace.platform.feature_state import StateKeys
from headrace.platform.kafka import KafkaAdmin, TopicPartition

if TYPE_CHECKING:
    from redis.asyncio import Redis

REPAIR = "`headrace features reset` clears the state, and the worker rebuilds it from what the topics hold"


@dataclass(frozen=True)
class StartingPoint:
    """Where one partition goes on.

    Attributes:
        offset: first offset to read.
        fence: last merged offset; nothing at or below it is merged again.
        committed: offset behind the last record whose results are published; nothing below it is published again.
        guard: the partition's time guard at `offset`.
        committed_highest: highest event time at `committed`, in microseconds.
    """

    offset: int
    fence: int
    committed: int
    guard: TimeGuard
    committed_highest: int


def starting_point(
    source: str, fence: int | None, stored: str, commit: tuple[int, str] | None, log: tuple[int, int]
) -> StartingPoint:
    """Decide where to go on.

    What lies between fence and commit was published, but Redis lost it: it is merged again and not published. What lies
    between commit and fence is merged already: it is evaluated and published again.

    Args:
        source: source partition, for messages.
        fence: last merged offset in Redis; None when there is none.
        stored: what Redis keeps beside the fence.
        commit: committed offset and its metadata (the guard); None when nothing is committed.
        log: first offset that the topic still has, and the offset behind its last.

    Raises:
        StateUnusableError: state and topic do not belong together, or what is needed is gone.
    """
    begin, end = log
    if fence is None and commit is None:
        return StartingPoint(begin, NOTHING_MERGED, 0, TimeGuard(), 0)
    merged = NOTHING_MERGED if fence is None else fence
    committed, metadata = commit or (begin, "")
    if merged >= end or committed > end:
        raise StateUnusableError(
            f"{source} ends at offset {end}, but the state has merged up to {merged} and {committed} is committed: "
            f"the topic has lost records. {REPAIR}"
        )
    offset = min(merged + 1, committed)
    if offset < begin:
        raise StateUnusableError(
            f"{source} begins at offset {begin}, but offset {offset} is needed: it was kept too short. {REPAIR}"
        )
    guard = TimeGuard.decode(metadata) if committed <= merged + 1 else decode_source(stored)[0]
    return StartingPoint(offset, merged, committed, guard, TimeGuard.decode(metadata).highest)


async def starting_points(
    client: Redis, keys: StateKeys, source: str, partitions: Mapping[int, TopicPartition], bootstrap: str, group: str
) -> dict[int, StartingPoint]:
    """Starting points of several partitions of one topic.

    Args:
        client: connection, bytes undecoded.
        keys: names.
        source: "events" or "outcomes".
        partitions: the partitions.
        bootstrap: Kafka brokers.
        group: consumer group.

    Raises:
        StateUnusableError: state and topic do not belong together, or what is needed is gone.
        KafkaFault: Kafka did not answer.
        redis.RedisError: Redis did not answer.
    """
    if not partitions:
        return {}
    topic = next(iter(partitions.values())).topic
    names = [f"{source}/{partition}" for partition in partitions]
    fences: dict[int, Any] = dict(zip(partitions, await client.hmget(keys.fences, names), strict=True))
    stored: dict[int, Any] = dict(zip(partitions, await client.hmget(keys.sources, names), strict=True))
    async with KafkaAdmin(bootstrap, timeout_s=30) as admin:
        committed = await admin.committed(group)
        ends = await admin.end_offsets([topic], read_committed=False)
        begins = await admin.begin_offsets([topic])
        identity = str((await admin.topic_ids([topic]))[topic])
    await _check_identity(client, keys, source, topic, identity)
    return {
        partition: starting_point(
            f"{topic}/{partition}",
            None if fences[partition] is None else int(fences[partition]),
            (stored[partition] or b"").decode(),
            committed.get(at),
            (begins[at], ends[at]),
        )
        for partition, at in partitions.items()
    }


async def _check_identity(client: Redis, keys: StateKeys, source: str, topic: str, identity: str) -> None:
    field = f"topic:{source}"
    await client.hsetnx(keys.sources, field, identity)
    found: Any = await client.hget(keys.sources, field)
    known = found.decode()
    if known != identity:
        raise StateUnusableError(
            f"topic {topic} is not the one that the state was made from (its id is {identity}, not {known}): it was "
            f"deleted and created again. {REPAIR}"
        )
