"""Merging against a real Redis: exact whatever the batches, workers, duplicates, redeliveries and trims."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from headrace.features import event_merging, state_writer
from headrace.features.accepted_events import AcceptedEvent, AcceptedEvents
from headrace.features.errors import FenceMovedError
from headrace.features.event_merging import EvaluatedBatch, EventMerger, PartitionProgress, decode_source
from headrace.features.outcome_merging import OutcomeMerger
from headrace.features.state_writer import StateWriter
from headrace.features.time_guard import TimeGuard
from headrace.features.trimming import Rewrite
from headrace.pipeline import DAY, HOUR, EventColumns
from headrace.pipeline.events import hash_ids
from headrace.pipeline.recompute import EventHistory, LabelHistory, Positions, recompute
from headrace.pipeline.state import LABEL_RECORD, compile_plan
from headrace.platform.event_codec import CheckedEvent, event_columns
from headrace.platform.feature_state import FeatureStateReader
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis_connection import RedisConnections
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import OUTCOME_KIND_LABELLED, Outcome, Prediction

pipeline = load_pipeline("pipelines/fraud.py")
plan = compile_plan(pipeline)
START = 1_600_000_000_000_000


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as connection:
        yield connection


class Replay:
    """A random stream in four partitions, and what was served of it."""

    def __init__(self, seed: int, events: int) -> None:
        random = np.random.default_rng(seed)
        times = START + np.sort(random.integers(0, 45 * DAY, events)) + random.integers(-HOUR, HOUR, events)
        customers, terminals = random.integers(0, 12, events), random.integers(0, 6, events)
        self.events = [
            CheckedEvent(f"e{i}", int(times[i]), [f"c{customers[i]}", f"t{terminals[i]}"], [float(cents)], False)
            for i, cents in enumerate(random.integers(1, 50_000, events))
        ]
        self.partitions = customers % 4
        for i in np.flatnonzero(random.random(events) < 0.05).tolist():  # sent again, sometimes without its key
            self.events[i] = self.events[max(i - 20, 0)]
            self.partitions[i] = random.choice([self.partitions[max(i - 20, 0)], random.integers(0, 4)])
        self.offsets = np.zeros(events, np.int64)
        for partition in range(4):
            rows = np.flatnonzero(self.partitions == partition)
            self.offsets[rows] = np.cumsum(random.integers(1, 3, len(rows)))
        self.frauds = np.flatnonzero(random.random(events) < 0.2)
        self.random = random
        self.vectors: dict[int, tuple[np.ndarray, Sequence[int], Sequence[int]]] = {}

    def accepted(self, row: int) -> AcceptedEvent:
        event = self.events[row]
        return AcceptedEvent(int(self.offsets[row]), event.time_us, None, event, TimeGuard(event.time_us))

    def serve(self, rows: list[int], evaluated: EvaluatedBatch) -> None:
        for row, values, which in zip(rows, evaluated.values, evaluated.evaluated.tolist(), strict=True):
            positions = evaluated.positions[which]
            self.vectors.setdefault(row, (values, positions.events, positions.outcomes))

    def recomputed(self, learned: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Served and recomputed vectors of all events, at the positions that were recorded."""
        columns = event_columns(pipeline, self.events)
        served = np.array([self.vectors[row][0] for row in range(len(self.events))])
        events = np.array([pad(self.vectors[row][1]) for row in range(len(self.events))])
        outcomes = np.array([pad(self.vectors[row][2]) for row in range(len(self.events))])
        labels = label_history(columns, learned)
        history = EventHistory(columns, self.partitions, self.offsets)
        return served, recompute(plan, columns, Positions(events, outcomes), history, labels)


def pad(positions: Sequence[int]) -> list[int]:
    return [*positions, *[-1] * (4 - len(positions))]


def label_history(columns: EventColumns, rows: list[int]) -> LabelHistory:
    return LabelHistory(
        [columns.ids[i] for i in rows],
        [[columns.texts[field][i] for i in rows] for field in pipeline.entity_fields],
        columns.times[rows],
        columns.times[rows] + 7 * DAY,
        np.ones(len(rows)),
        np.full(len(rows), math.nan),
        np.zeros(len(rows), np.int64),
        np.arange(len(rows)),
    )


@pytest.fixture
async def connections(redis_url: str) -> AsyncIterator[RedisConnections]:
    made = RedisConnections(redis_url)
    yield made
    await made.aclose()


def merger(connections: RedisConnections, namespace: str, chunk: int = 7) -> EventMerger:
    reader = FeatureStateReader(connections, plan, namespace)
    return EventMerger(plan, reader, StateWriter(connections, reader.keys, 3600), chunk, small_events=5)


async def merge(worker: EventMerger, partition: int, *events: AcceptedEvent) -> EvaluatedBatch:
    return await worker.merge([(partition, AcceptedEvents.of(pipeline, events))])


def outcome(event: CheckedEvent) -> Outcome:
    prediction = Prediction(
        event_id=event.event_id, event_time_us=event.time_us, entities=list(event.texts), ingested=True
    )
    label = Label(event_id=event.event_id, value=1, label_time_us=event.time_us + 7 * DAY)
    return Outcome(prediction=prediction, label=label, kind=OUTCOME_KIND_LABELLED)


@pytest.mark.parametrize("seed", range(4))
async def test_vectors_equal_the_recomputation(
    client: Redis, connections: RedisConnections, namespace: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_merging, "KEYS_PER_READ", 9)
    replay = Replay(seed, 1500)
    workers = [merger(connections, namespace), merger(connections, namespace)]
    labels = OutcomeMerger(plan, workers[0].reader.keys, workers[0].writer)
    owners = replay.random.integers(0, 2, 4)
    learned: list[int] = []
    waiting = {p: np.flatnonzero(replay.partitions == p).tolist() for p in range(4)}
    while any(waiting.values()):
        first = min(waiting, key=lambda p: replay.events[waiting[p][0]].time_us if waiting[p] else math.inf)
        if replay.random.random() < 0.1:
            owners[first] = 1 - owners[first]
        worker = workers[owners[first]]
        worker.progress[first] = await stored_progress(client, worker, first)
        size = int(replay.random.integers(1, 40))
        rows, waiting[first] = waiting[first][:size], waiting[first][size:]
        redelivered = [r for r in np.flatnonzero(replay.partitions == first).tolist() if r in replay.vectors][-3:]
        batch = [replay.accepted(row) for row in redelivered + rows]
        evaluated = await merge(worker, first, *batch)
        replay.serve(redelivered + rows, evaluated)
        now = replay.events[rows[-1]].time_us
        worker.progress[first].committed_highest = now
        due = [i for i in replay.frauds.tolist() if i not in learned and replay.events[i].time_us + 7 * DAY < now]
        if due:
            records = [(len(learned) + at, now, outcome(replay.events[i])) for at, i in enumerate(due)]
            await labels.merge(0, records, records[-1][0])
            await labels.merge(0, records, records[-1][0])
            learned += due
    served, expected = replay.recomputed(learned)
    np.testing.assert_array_equal(served, expected)


async def stored_progress(client: Redis, worker: EventMerger, partition: int) -> PartitionProgress:
    fence = await client.hget(worker.reader.keys.fences, f"events/{partition}")
    source: Any = await client.hget(worker.reader.keys.sources, f"events/{partition}")
    return PartitionProgress(int(fence or -1), decode_source((source or b"").decode())[1])


async def test_a_worker_that_was_overtaken_evaluates_again(
    client: Redis, connections: RedisConnections, namespace: str
) -> None:
    """Another worker merges an event of the same terminal between our read and our write."""
    first, second = merger(connections, namespace), merger(connections, namespace)
    first.progress[0], second.progress[1] = PartitionProgress(), PartitionProgress()
    theirs = CheckedEvent("theirs", START, ["c1", "t"], [100.0], False)
    ours = CheckedEvent("ours", START + 8 * DAY, ["c0", "t"], [100.0], False)
    append, done = first.writer.append, False

    async def overtaken(*arguments: object) -> list[int]:
        nonlocal done
        if not done:
            done = True
            await merge(second, 1, AcceptedEvent(0, 1, None, theirs, TimeGuard(theirs.time_us)))
        return await append(*arguments)  # type: ignore[arg-type]

    first.writer.append = overtaken  # type: ignore[method-assign,assignment]
    evaluated = await merge(first, 0, AcceptedEvent(0, 1, None, ours, TimeGuard(ours.time_us)))
    assert evaluated.values[0][pipeline.feature_names.index("terminal_count_7d")] == 1
    assert evaluated.positions[evaluated.evaluated[0]].events == [0, 0]


async def test_a_moved_fence_stops_the_worker_and_nothing_is_counted_twice(
    client: Redis, connections: RedisConnections, namespace: str
) -> None:
    event = CheckedEvent("e", START, ["c", "t"], [100.0], False)
    batch = [(0, AcceptedEvents.of(pipeline, [AcceptedEvent(5, 1, None, event, TimeGuard(START))]))]
    owner, zombie = merger(connections, namespace), merger(connections, namespace)
    owner.progress[0], zombie.progress[0] = PartitionProgress(), PartitionProgress()
    await owner.merge(batch)
    with pytest.raises(FenceMovedError, match="events/0"):
        await zombie.merge(batch)
    with pytest.raises(FenceMovedError):
        await zombie.writer.append("events/0", -1, 5, "", 1, {owner.reader.keys.event_log("customer") + "c": b"x" * 28})
    length = await client.strlen(owner.reader.keys.event_log("customer") + "c")
    assert length == plan.entities[0].event_record.itemsize


async def test_old_records_are_trimmed(client: Redis, connections: RedisConnections, namespace: str) -> None:
    worker = merger(connections, namespace, chunk=100)
    worker.progress[0] = PartitionProgress()
    key = worker.reader.keys.event_log("customer") + "c"
    for day in range(200):
        event = CheckedEvent(f"e{day}", START + day * DAY, ["c", "t"], [100.0], False)
        evaluated = await merge(worker, 0, AcceptedEvent(day, 1, None, event, TimeGuard(event.time_us)))
        worker.progress[0].committed_highest = event.time_us
        assert evaluated.values[0][pipeline.feature_names.index("customer_count_30d")] == min(day + 1, 30)
    assert await client.strlen(key) <= 80 * plan.entities[0].event_record.itemsize


CHECK = "if fence ~= ARGV[2] then return redis.error_reply('FENCED ' .. fence) end"


@pytest.mark.parametrize("checked", [True, False])
async def test_the_fence_is_what_keeps_a_label_from_being_counted_twice(
    client: Redis, connections: RedisConnections, namespace: str, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    """The owner merges between a zombie's read and its write. Without the check in the script, both count."""
    assert CHECK in state_writer.APPEND
    if not checked:
        monkeypatch.setattr(state_writer, "APPEND", state_writer.APPEND.replace(CHECK, ""))
    labelled = outcome(CheckedEvent("e", START, ["c", "t"], [100.0], False))
    events = merger(connections, namespace)
    owner, zombie = (OutcomeMerger(plan, events.reader.keys, merger(connections, namespace).writer) for _ in range(2))
    append = zombie.writer.append

    async def late(*arguments: object) -> list[int]:
        await owner.merge(0, [(5, 1, labelled)], 5)
        return await append(*arguments)  # type: ignore[arg-type]

    zombie.writer.append = late  # type: ignore[method-assign,assignment]
    if checked:
        with pytest.raises(FenceMovedError, match="outcomes/0 is at 5, this worker left it at -1"):
            await zombie.merge(0, [(5, 1, labelled)], 5)
    else:
        await zombie.merge(0, [(5, 1, labelled)], 5)
    length = await client.strlen(events.reader.keys.label_log("terminal") + "t")
    assert length == LABEL_RECORD.itemsize * (1 if checked else 2)


async def test_a_log_that_was_trimmed_and_has_grown_again_is_noticed(
    client: Redis, connections: RedisConnections, namespace: str
) -> None:
    """Between our read and our write another worker replaces a log by one of the same length."""
    worker = merger(connections, namespace)
    worker.progress[0] = PartitionProgress()
    first, second = (
        CheckedEvent(f"e{number}", START + number * DAY, ["c", f"t{number}"], [100.0], False) for number in range(2)
    )
    await merge(worker, 0, AcceptedEvent(0, 1, None, first, TimeGuard(first.time_us)))
    name = worker.reader.keys.event_log("customer") + "c"
    stored: Any = await client.get(name)
    header = plan.entities[0].header(plan.entities[0].event_record, 1)
    append = worker.writer.append

    async def late(*arguments: object) -> list[int]:
        if await client.get(name) == stored:
            assert await worker.writer.rewrite([name], [Rewrite(0, len(stored), stored, stored, header)]) == 1
        return await append(*arguments)  # type: ignore[arg-type]

    worker.writer.append = late  # type: ignore[method-assign,assignment]
    evaluated = await merge(worker, 0, AcceptedEvent(1, 1, None, second, TimeGuard(second.time_us)))
    assert evaluated.values[0][pipeline.feature_names.index("customer_count_30d")] == 1


async def test_records_that_add_nothing_move_the_fence(
    client: Redis, connections: RedisConnections, namespace: str
) -> None:
    worker = merger(connections, namespace)
    worker.progress[0] = PartitionProgress()
    await worker.advance(0, 7, TimeGuard(START, START + 3 * DAY))
    await worker.advance(0, 6, TimeGuard())
    assert worker.progress[0].fence == 7
    assert await client.hgetall(worker.reader.keys.fences) == {b"events/0": b"7"}
    stored: Any = await client.hget(worker.reader.keys.sources, "events/0")
    assert decode_source(stored.decode())[0] == TimeGuard(START, START + 3 * DAY)
    worker.progress[0].fence = 5
    with pytest.raises(FenceMovedError):
        await worker.advance(0, 8, TimeGuard())


async def test_nothing_is_trimmed_before_every_partition_with_events_has_begun(
    client: Redis, connections: RedisConnections, namespace: str
) -> None:
    worker = merger(connections, namespace, chunk=100)
    worker.progress[0] = PartitionProgress()
    await client.hset(worker.reader.keys.sources, "events/1", "")
    for day in range(200):
        event = CheckedEvent(f"e{day}", START + day * DAY, ["c", "t"], [100.0], False)
        await merge(worker, 0, AcceptedEvent(day, 1, None, event, TimeGuard(event.time_us)))
        worker.progress[0].committed_highest = event.time_us
    name = worker.reader.keys.event_log("customer") + "c"
    assert await client.strlen(name) == 200 * plan.entities[0].event_record.itemsize


async def test_an_idle_partition_holds_trimming_back_no_longer_and_what_comes_from_it_is_late(
    client: Redis, connections: RedisConnections, namespace: str
) -> None:
    worker = merger(connections, namespace, chunk=100)
    worker.progress[0], worker.progress[1] = PartitionProgress(), PartitionProgress()

    async def come(partition: int, offset: int, time: int) -> bool:
        event = CheckedEvent(f"e{partition}-{offset}", time, ["c", "t"], [100.0], False)
        evaluated = await merge(worker, partition, AcceptedEvent(offset, 1, None, event, TimeGuard(time)))
        worker.progress[partition].committed_highest = time
        return bool(evaluated.late[0])

    assert not await come(1, 0, START)
    assert not await come(1, 1, START + 1)
    name, size = worker.reader.keys.event_log("customer") + "c", plan.entities[0].event_record.itemsize
    for day in range(100):
        assert not await come(0, day, START + day * DAY)
    assert await client.strlen(name) == 102 * size
    assert not await worker.set_idle(0, TimeGuard(START + 99 * DAY)), "it holds nothing back"
    assert await worker.set_idle(1, TimeGuard(START + 1))
    for day in range(100, 140):
        assert not await come(0, day, START + day * DAY)
    assert await client.strlen(name) < 100 * size
    assert await come(1, 2, START + 2)
    assert not await come(0, 140, START + 140 * DAY)
    stored: Any = await client.hget(worker.reader.keys.sources, "events/1")
    assert decode_source(stored.decode()) == (TimeGuard(START + 2), START + 1), "it counts again"
    assert not await come(1, 3, START + 140 * DAY)


@pytest.mark.parametrize("trimmed", [False, True])
async def test_an_event_sent_to_two_partitions_at_once_is_counted_once(
    client: Redis, connections: RedisConnections, namespace: str, trimmed: bool
) -> None:
    """Another worker merges copies of our events between our read and our write, and rewrites the log perhaps."""
    ours, theirs = merger(connections, namespace, chunk=2), merger(connections, namespace)
    ours.progress[0], theirs.progress[1] = PartitionProgress(), PartitionProgress()
    events = [CheckedEvent(f"e{i}", START + i, ["c", "t"], [100.0], False) for i in range(6)]
    append, done = ours.writer.append, False
    name = ours.reader.keys.event_log("customer") + "c"
    size = plan.entities[0].event_record.itemsize

    async def overtaken(*arguments: object) -> list[int]:
        nonlocal done
        if not done:
            done = True
            copies = [AcceptedEvent(i, 1, None, events[i], TimeGuard(START)) for i in (1, 4)]
            await theirs.merge([(1, AcceptedEvents.of(pipeline, copies))])
            if trimmed:
                stored: Any = await client.get(name)
                content = plan.entities[0].header(plan.entities[0].event_record, 1) + stored
                await theirs.writer.rewrite([name], [Rewrite(0, len(stored), stored[:size], stored[-size:], content)])
        return await append(*arguments)  # type: ignore[arg-type]

    ours.writer.append = overtaken  # type: ignore[method-assign,assignment]
    batch = [AcceptedEvent(i, 1, None, event, TimeGuard(START)) for i, event in enumerate(events)]
    evaluated = await ours.merge([(0, AcceptedEvents.of(pipeline, batch))])
    at = pipeline.feature_names.index("customer_count_1d")
    assert evaluated.values[:, at].tolist() == [1, 2, 3, 4, 5, 6]
    assert {tuple(evaluated.positions[which].events) for which in evaluated.evaluated.tolist()} == {(5, 4)}
    log: Any = await client.get(name)
    ids = np.frombuffer(log, plan.entities[0].event_record)["id"][int(trimmed) :]
    assert sorted(ids.tolist()) == sorted(hash_ids([event.event_id for event in events]).tolist())


async def test_what_is_read_in_parts_while_others_merge_is_of_one_moment(
    redis_url: str, connections: RedisConnections, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker merges between the parts of our read: then small parts are merged one after the other."""
    monkeypatch.setattr(event_merging, "KEYS_PER_READ", 4)
    own = RedisConnections(redis_url)
    ours, theirs = merger(own, namespace), merger(connections, namespace)
    for partition in (0, 2):
        ours.progress[partition] = PartitionProgress()
    theirs.progress[1] = PartitionProgress()
    transaction, number = own.transaction, 0

    async def overtaken(*commands: Any) -> list[Any]:
        nonlocal number
        replies = await transaction(*commands)
        event = CheckedEvent(f"theirs{number}", START + number, ["c", "t"], [100.0], False)
        await merge(theirs, 1, AcceptedEvent(number, 1, None, event, TimeGuard(event.time_us)))
        number += 1
        return replies

    own.transaction = overtaken  # type: ignore[method-assign]
    events = [
        CheckedEvent(f"e{i}", START + DAY // 2 + i, [f"c{i % 3}" if i % 2 else "c", "t"], [100.0], False)
        for i in range(24)
    ]
    halves = [
        (
            partition,
            AcceptedEvents.of(
                pipeline,
                [AcceptedEvent(i, 1, None, events[i], TimeGuard(events[i].time_us)) for i in range(first, first + 12)],
            ),
        )
        for partition, first in ((0, 0), (2, 12))
    ]
    evaluated = await ours.merge(halves)
    await own.aclose()
    sent = [*events, *(CheckedEvent(f"theirs{i}", START + i, ["c", "t"], [100.0], False) for i in range(number))]
    columns = event_columns(pipeline, sent)
    places = [0] * 12 + [2] * 12 + [1] * number, [*range(24), *range(number)]
    history = EventHistory(columns, *(np.array(column, np.int64) for column in places))
    positions = np.array([pad(evaluated.positions[which].events) for which in evaluated.evaluated])
    expected = recompute(
        plan,
        columns.take(np.arange(24)),
        Positions(positions, np.full((24, 4), -1)),
        history,
        label_history(columns, []),
    )
    np.testing.assert_array_equal(evaluated.values, expected)
    assert len({tuple(row) for row in positions.tolist()}) > 1
