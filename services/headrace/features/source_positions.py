"""Where to read on after a start or a rebalance: from what Redis holds and what Kafka has committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.features.cut_over import BACKFILL, RUNNING
from headrace.features.errors import FenceMovedError, StateUnusableError
from headrace.features.event_merging import NOTHING_MERGED, decode_source
from headrace.features.time_guard import TimeGuard
from headrace.platform.feature_state import EVENTS, StateKeys
from headrace.platform.kafka import KafkaAdmin, TopicPartition

if TYPE_CHECKING:
    from redis.asyncio import Redis

KAFKA_TIMEOUT_S = 30.0
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
    return StartingPoint(offset, merged, committed, guard, TimeGuard.decode(metadata).confirmed)


async def starting_points(
    client: Redis, keys: StateKeys, source: str, topic: str, partitions: Sequence[int], bootstrap: str, group: str
) -> dict[int, StartingPoint]:
    """Starting points of partitions of a topic.

    Args:
        client: connection, bytes undecoded.
        keys: names.
        source: "events" or "outcomes".
        topic: full topic name.
        partitions: the partitions.
        bootstrap: Kafka brokers.
        group: consumer group.

    Raises:
        StateUnusableError: state and topic do not belong together, or what is needed is gone.
        KafkaFault: Kafka did not answer.
        redis.RedisError: Redis did not answer.
    """
    if await client.hget(keys.sources, BACKFILL) == RUNNING.encode():
        raise StateUnusableError(
            f"the backfill of the state {keys.prefix} has not finished: `headrace features backfill` goes on with it"
        )
    names = [f"{source}/{partition}" for partition in partitions]
    async with KafkaAdmin(bootstrap, timeout_s=KAFKA_TIMEOUT_S) as admin:
        await check_identity(client, keys, source, topic, str((await admin.topic_ids([topic]))[topic]))
        committed = await admin.committed(group)
        fences, stored = await _read_sources(client, keys, names)
        # The ends last: another worker may go on merging until it hears that it has lost its partitions.
        begins = await admin.begin_offsets([topic])
        ends = await admin.end_offsets([topic], read_committed=False)
    if source == EVENTS:
        # Nothing may be trimmed before each partition that has events has said how far it is.
        for at in sorted(at for at, end in ends.items() if end > begins[at]):
            await client.hsetnx(keys.sources, f"{source}/{at.partition}", "")
    return {
        partition: starting_point(
            f"{topic}/{partition}",
            fence,
            guard,
            committed.get(TopicPartition(topic, partition)),
            (begins[TopicPartition(topic, partition)], ends[TopicPartition(topic, partition)]),
        )
        for partition, fence, guard in zip(partitions, fences, stored, strict=True)
    }


async def check_fences(client: Redis, keys: StateKeys, source: str, expected: Mapping[int, int]) -> None:
    """Check that fences are where this worker left them.

    Args:
        client: connection, bytes undecoded.
        keys: names.
        source: "events" or "outcomes".
        expected: last merged offset of each partition.

    Raises:
        FenceMovedError: one is not.
    """
    if not expected:
        return
    names = [f"{source}/{partition}" for partition in expected]
    found: list[Any] = await client.hmget(keys.fences, names)
    for name, mine, fence in zip(names, expected.values(), found, strict=True):
        at = NOTHING_MERGED if fence is None else int(fence)
        if at != mine:
            raise FenceMovedError(name, mine, str(at))


async def _read_sources(client: Redis, keys: StateKeys, names: Sequence[str]) -> tuple[list[int | None], list[str]]:
    """Fences and what is stored beside them, of one moment."""
    if not names:
        return [], []
    async with client.pipeline(transaction=True) as pipe:
        pipe.hmget(keys.fences, names)
        pipe.hmget(keys.sources, names)
        fences, stored = await pipe.execute()
    return [None if fence is None else int(fence) for fence in fences], [(text or b"").decode() for text in stored]


async def check_identity(client: Redis, keys: StateKeys, source: str, topic: str, identity: str) -> None:
    """Check that a state was made from this very topic; a new state is from now on.

    Args:
        client: connection, bytes undecoded.
        keys: names.
        source: "events" or "outcomes".
        topic: full topic name.
        identity: id of the topic.

    Raises:
        StateUnusableError: it was made from another topic of the same name.
    """
    field = f"topic:{source}"
    await client.hsetnx(keys.sources, field, identity)
    found: Any = await client.hget(keys.sources, field)
    known = found.decode()
    if known != identity:
        raise StateUnusableError(
            f"topic {topic} is not the one that the state was made from (its id is {identity}, not {known}): it was "
            f"deleted and created again. {REPAIR}"
        )
