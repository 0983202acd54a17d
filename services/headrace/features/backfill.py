"""Building the state of a definition from history, while another definition serves.

First the history outside the topics, if there is one, then `events` and `outcomes` up to their present ends. Every
batch moves the fence of its source in the script that appends it, so an interrupted backfill goes on where it was.
At the end the consumer groups of the definition are set to what follows the fences: the worker that starts there
evaluates and publishes every later event, once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from aiokafka import OffsetAndMetadata
from aiokafka.errors import KafkaError

from headrace.features.bulk_merging import NOTHING_MERGED, BulkEvents, BulkMerger
from headrace.features.cut_over import BACKFILL, RUNNING, CutOver
from headrace.features.decoding import DecodedPartition, decode_partition
from headrace.features.event_merging import PartitionProgress, decode_source
from headrace.features.outcome_decoding import decode_outcomes
from headrace.features.outcome_merging import OutcomeMerger
from headrace.features.source_positions import check_identity
from headrace.features.stored_states import DEFINITION
from headrace.features.time_guard import TimeGuard
from headrace.pipeline.events import EventColumns
from headrace.pipeline.state import LABEL_RECORD
from headrace.platform import kafka
from headrace.platform.errors import OperatorError
from headrace.platform.feature_state import EVENTS, OUTCOMES
from headrace.platform.kafka import KafkaAdmin, KafkaRefused, TopicPartition

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer
    from redis.asyncio import Redis

    from headrace.features.history import History
    from headrace.platform.topics import Topics

KAFKA_TIMEOUT_S = 30.0
WAIT_MS = 200
OUTCOMES_PER_SCRIPT = 500
HISTORY = "history-"
GROUPS = {EVENTS: "features", OUTCOMES: "features-outcomes"}


class BackfillRefusedError(OperatorError):
    """The state of this definition is not to be built from history; the message says why and what to do."""


class BackfillStalledError(OperatorError):
    """Kafka delivers nothing more, though there is more."""

    retriable = True


@dataclass(frozen=True)
class Share:
    """The part of the work that one of several processes does.

    Attributes:
        number: from 0.
        of: how many there are.
    """

    number: int = 0
    of: int = 1


@dataclass
class Backfill:
    """Builds one state.

    Attributes:
        client: connection to the state, bytes undecoded.
        bootstrap: Kafka brokers.
        topics: names.
        merger: of events.
        outcomes: of outcomes.
        batch_events: events that are read and merged together.
    """

    client: Redis
    bootstrap: str
    topics: Topics
    merger: BulkMerger
    outcomes: OutcomeMerger
    batch_events: int

    async def begin(self) -> CutOver | None:
        """Check that this state may be built, and mark it as unfinished; the cut-over if it is complete already.

        Raises:
            BackfillRefusedError: a worker has made this state, or its consumer groups are in use.
            StateUnusableError: the state was made from topics that were deleted and created again.
        """
        keys = self.merger.reader.keys
        mark: Any = await self.client.hget(keys.sources, BACKFILL)
        if mark is not None and mark.decode() != RUNNING:
            return CutOver.decode(mark.decode())
        async with KafkaAdmin(self.bootstrap, timeout_s=KAFKA_TIMEOUT_S) as admin:
            for name in GROUPS.values():
                group = self.topics.definition_group(name)
                if mark is None and await admin.committed(group):
                    raise BackfillRefusedError(
                        f"consumer group {group} has commits, so a worker has run under this definition's name; set "
                        "HEADRACE_DEFINITION to a new name for the changed definition"
                    )
            if mark is None and await self.client.exists(keys.fences):
                raise BackfillRefusedError(
                    f"the state {keys.prefix} is there already, made by a worker; `headrace features list` shows all "
                    "states, `headrace features retire` deletes one"
                )
            await self.client.hset(keys.sources, mapping={BACKFILL: RUNNING, DEFINITION: self.topics.definition})
            identities = await admin.topic_ids([self.topics.events, self.topics.outcomes])
            begins = await admin.begin_offsets([self.topics.events])
            ends = await admin.end_offsets([self.topics.events], read_committed=False)
        for source, topic in ((EVENTS, self.topics.events), (OUTCOMES, self.topics.outcomes)):
            await check_identity(self.client, keys, source, topic, str(identities[topic]))
        # Nothing may be trimmed before each partition that has events has said how far it is.
        for at in sorted(at for at, end in ends.items() if end > begins[at]):
            await self.client.hsetnx(keys.sources, f"{EVENTS}/{at.partition}", "")
        return None

    async def merge_history(self, history: History, share: Share) -> None:
        """Merge the share's part of a history: the events whose busiest entity falls to it, with their labels.

        Raises:
            FenceMovedError: another backfill is at work.
            redis.RedisError: the state could not be reached.
        """
        source = history_source(history, share)
        fence, _ = await self._position(source)
        key = self.merger.plan.pipeline.key_field
        for first, columns, label_rows, labels in history.blocks(fence + 1, self.batch_events):
            rows, through = np.arange(first, first + len(columns)), first + len(columns) - 1
            if share.of > 1:
                mine = np.array([_bucket(one, share.of) == share.number for one in columns.texts[key]], np.bool_)
                columns, rows, label_rows, labels = _select(columns, rows, label_rows, labels, mine)  # noqa: PLW2901
            events = BulkEvents(rows, columns, np.zeros(len(rows), np.int64), label_rows, labels)
            await self.merger.merge(source, fence, events, through, lambda _: "")
            fence = through

    async def merge_topics(self, share: Share, ends: Mapping[TopicPartition, int], *, overlap: bool) -> None:
        """Merge the share's partitions of `events` and `outcomes` up to the given ends.

        Args:
            share: which partitions.
            ends: by partition of both topics the offset behind the last record that is due.
            overlap: whether a history may have held labels that `outcomes` has too.

        Raises:
            BackfillRefusedError: what is needed is no longer in the topics.
            BackfillStalledError: Kafka delivers nothing more, though there is more.
            FenceMovedError: another backfill is at work.
            redis.RedisError: the state could not be reached.
        """
        mine = {at: end for at, end in ends.items() if at.partition % share.of == share.number}
        # The outcomes first: labels that a history has brought are told from others only while they are not merged.
        await self._merge_outcomes({at: end for at, end in mine.items() if at.topic == self.topics.outcomes}, overlap)
        await self._merge_events({at: end for at, end in mine.items() if at.topic == self.topics.events})

    async def ends(self) -> dict[TopicPartition, int]:
        """The present ends of `events` and `outcomes`."""
        async with KafkaAdmin(self.bootstrap, timeout_s=KAFKA_TIMEOUT_S) as admin:
            return await admin.end_offsets([self.topics.events, self.topics.outcomes])

    async def merged(self) -> dict[str, int]:
        """Last merged offset by source partition."""
        found: Any = await self.client.hgetall(self.merger.reader.keys.fences)
        return {name.decode(): int(fence) for name, fence in found.items()}

    async def finish(self) -> CutOver:
        """Mark the state as complete, and set the definition's consumer groups to what follows it.

        Raises:
            BackfillRefusedError: the groups have members: a worker runs already.
        """
        keys, merged = self.merger.reader.keys, await self.merged()
        ends = await self.ends()
        events: dict[int, tuple[int, str]] = {}
        outcomes: dict[int, int] = {}
        for at in sorted(ends):
            if at.topic == self.topics.outcomes:
                outcomes[at.partition] = merged.get(f"{OUTCOMES}/{at.partition}", NOTHING_MERGED) + 1
            else:
                fence, guard = await self._position(f"{EVENTS}/{at.partition}")
                events[at.partition] = (fence + 1, guard.encode())
        history = [name for name in merged if name.startswith(HISTORY)]
        cut_over = CutOver(events, outcomes)
        async with self.client.pipeline(transaction=True) as pipe:
            pipe.hset(keys.sources, BACKFILL, cut_over.encode())
            if history:
                pipe.hdel(keys.fences, *history)
                pipe.hdel(keys.sources, *history)
            await pipe.execute()
        await self.commit(cut_over)
        return cut_over

    async def commit(self, cut_over: CutOver) -> None:
        """Set the definition's consumer groups to the cut-over where they have committed nothing yet.

        Raises:
            BackfillRefusedError: the groups have members: a worker runs already.
        """
        of_events = {p: OffsetAndMetadata(offset, guard) for p, (offset, guard) in cut_over.events.items()}
        of_outcomes = {p: OffsetAndMetadata(offset, "") for p, offset in cut_over.outcomes.items()}
        for name, topic, wanted in (
            (GROUPS[EVENTS], self.topics.events, of_events),
            (GROUPS[OUTCOMES], self.topics.outcomes, of_outcomes),
        ):
            group = self.topics.definition_group(name)
            async with KafkaAdmin(self.bootstrap, timeout_s=KAFKA_TIMEOUT_S) as admin:
                committed = await admin.committed(group)
            offsets = {TopicPartition(topic, partition): one for partition, one in wanted.items()}
            offsets = {at: one for at, one in offsets.items() if at not in committed}
            if not offsets:
                continue
            async with kafka.consumer(self.bootstrap, partitions=list(offsets), group=group) as consumer:
                try:
                    await consumer.commit(offsets)
                except Exception as error:
                    fault = kafka.translate(error, f"consumer group {group} was not set to the cut-over")
                    if isinstance(fault, KafkaRefused):
                        raise BackfillRefusedError(f"{fault}; is a worker of this definition running?") from error
                    raise fault from error

    async def _merge_events(self, ends: Mapping[TopicPartition, int]) -> None:
        fences: dict[TopicPartition, int] = {}
        guards: dict[TopicPartition, TimeGuard] = {}
        for at in ends:
            fences[at], guards[at] = await self._position(f"{EVENTS}/{at.partition}")
        reading = await self._reading(EVENTS, ends, fences)
        if not reading:
            return
        async with kafka.consumer(self.bootstrap, partitions=list(reading), offset_reset="none") as consumer:
            for at, position in reading.items():
                consumer.seek(at, position)
            heard = time.monotonic()
            while due := [at for at in reading if reading[at] < ends[at]]:
                # The one that is furthest behind in event time first, so that all can be trimmed as they grow.
                at = min(due, key=lambda one: guards[one].highest)
                records, position = await self._next(consumer, at, self.batch_events)
                if position == reading[at]:
                    self._check_heard(at, heard)
                    continue
                decoded = decode_partition(self.merger.plan.pipeline, records, guards[at])
                events = BulkEvents(
                    decoded.accepted.offsets,
                    decoded.accepted.columns,
                    decoded.accepted.produced_us,
                    np.zeros(0, np.intp),
                    np.zeros(0, LABEL_RECORD),
                )
                source = f"{EVENTS}/{at.partition}"
                # Nothing of it will be evaluated again, so what is merged counts as committed.
                await self.merger.merge(source, fences[at], events, position - 1, _states(decoded))
                fences[at], guards[at], reading[at], heard = position - 1, decoded.guard, position, time.monotonic()

    async def _merge_outcomes(self, ends: Mapping[TopicPartition, int], overlap: bool) -> None:
        fences = {at: (await self._position(f"{OUTCOMES}/{at.partition}"))[0] for at in ends}
        self.outcomes.fences = {at.partition: fence for at, fence in fences.items()}
        reading = await self._reading(OUTCOMES, ends, fences)
        if not reading:
            return
        async with kafka.consumer(self.bootstrap, partitions=list(reading), offset_reset="none") as consumer:
            for at, position in reading.items():
                consumer.seek(at, position)
            heard = time.monotonic()
            while due := [at for at in reading if reading[at] < ends[at]]:
                at = due[0]
                records, position = await self._next(consumer, at, OUTCOMES_PER_SCRIPT)
                if position == reading[at]:
                    self._check_heard(at, heard)
                    continue
                read, _ = decode_outcomes(self.merger.plan.pipeline, records)
                await self.outcomes.merge(at.partition, read, position - 1, once=overlap)
                reading[at], heard = position, time.monotonic()

    async def _reading(
        self, source: str, ends: Mapping[TopicPartition, int], fences: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Where to read on in each partition that has something due; one whose records have all left gets its fence."""
        if not ends:
            return {}
        topic = self.topics.events if source == EVENTS else self.topics.outcomes
        async with KafkaAdmin(self.bootstrap, timeout_s=KAFKA_TIMEOUT_S) as admin:
            begins = await admin.begin_offsets([topic])
        reading = {}
        for at, fence in fences.items():
            if fence == NOTHING_MERGED:
                reading[at] = begins[at]
                if ends[at] == begins[at] > 0:
                    await self.client.hsetnx(self.merger.reader.keys.fences, f"{source}/{at.partition}", begins[at] - 1)
            elif fence + 1 < begins[at]:
                raise BackfillRefusedError(
                    f"{topic}/{at.partition} begins at offset {begins[at]}, but the interrupted backfill needs offset "
                    f"{fence + 1}: delete what it has built (`headrace features retire`) and begin again"
                )
            else:
                reading[at] = fence + 1
        return {at: position for at, position in reading.items() if position < ends[at]}

    async def _next(self, consumer: AIOKafkaConsumer, at: TopicPartition, most: int) -> tuple[list[Any], int]:
        """The next records of a partition, and the position behind them; markers of transactions are passed."""
        try:
            found = await consumer.getmany(at, timeout_ms=WAIT_MS, max_records=most)
        except (KafkaError, OSError) as error:
            raise kafka.translate(error, f"{at.topic}/{at.partition} cannot be read") from error
        return list(found.get(at, ())), int(await consumer.position(at))

    def _check_heard(self, at: TopicPartition, heard: float) -> None:
        if time.monotonic() - heard > KAFKA_TIMEOUT_S:
            raise BackfillStalledError(f"{at.topic}/{at.partition}: nothing was read for {KAFKA_TIMEOUT_S:g} s")

    async def _position(self, source: str) -> tuple[int, TimeGuard]:
        """Last merged offset of a source partition, and its time guard there."""
        keys = self.merger.reader.keys
        fence: Any = await self.client.hget(keys.fences, source)
        stored: Any = await self.client.hget(keys.sources, source)
        return NOTHING_MERGED if fence is None else int(fence), decode_source((stored or b"").decode())[0]


def history_source(history: History, share: Share) -> str:
    """How the fence of a share of a history is named."""
    return f"{HISTORY}{history.identity}/{share.number}of{share.of}"


def _states(decoded: DecodedPartition) -> Callable[[int], str]:
    """What belongs to a partition of `events` once the first events of a batch are merged."""

    def state(count: int) -> str:
        guard = decoded.guard if count == len(decoded.accepted) else decoded.accepted.guards.after(count - 1)
        return PartitionProgress(committed_highest=guard.confirmed).encode(guard)

    return state


def _bucket(entity_id: str, of: int) -> int:
    return kafka.murmur2_partition(entity_id.encode(), of)


def _select(
    columns: EventColumns,
    rows: npt.NDArray[np.int64],
    label_rows: npt.NDArray[np.intp],
    labels: npt.NDArray[Any],
    mine: npt.NDArray[np.bool_],
) -> tuple[EventColumns, npt.NDArray[np.int64], npt.NDArray[np.intp], npt.NDArray[Any]]:
    """The rows that are a share's own, with their labels."""
    number = np.cumsum(mine) - 1
    kept = mine[label_rows]
    return columns.take(np.flatnonzero(mine)), rows[mine], number[label_rows[kept]], labels[kept]
