"""The join of one partition, from its topics to its topics.

The order that makes it exact: first the Kafka transaction, which publishes the outcomes of a batch and commits the
offsets that they were made from, then the store, which keeps what the batch changed together with the same offsets.
After a crash at any moment the store is at the commit, or behind it by what was not written. What lies between is read
again and joined without being published (`join` says why that is enough), and then the join goes on as if nothing had
happened. A store that is gone is one that is behind by everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from opentelemetry import trace

from headrace.outcomes import metrics
from headrace.outcomes.decoding import Decoded, Record, decode
from headrace.outcomes.errors import RecordsLostError, StalledError
from headrace.outcomes.event_state import EventState, Stored, stored_as
from headrace.outcomes.expiry import ExpiryGate, PartitionTimes, expire
from headrace.outcomes.join import BatchJoin, JoinRules, event_ids
from headrace.outcomes.progress import Positions, Progress
from headrace.outcomes.transactions import Outgoing
from headrace.platform.health import Heartbeat
from headrace.platform.logging import get_logger

POLL_MS = 100
STALL_S = 60.0
IDLE_COMMIT_S = 0.2


class Reader(Protocol):
    """Where predictions and labels come from: `reading.PartitionReader`, which says what each does."""

    async def first(self) -> Positions: ...
    async def ends(self) -> Positions: ...
    def seek(self, positions: Positions) -> None: ...
    async def positions(self) -> Positions: ...
    async def poll(self, wait_ms: int, most: int) -> tuple[Sequence[Record], Sequence[Record]]: ...
    async def poll_below(
        self, ends: Positions, wait_ms: int, most: int
    ) -> tuple[Sequence[Record], Sequence[Record]]: ...
    def lag(self, at: Positions) -> Positions | None: ...


class Writer(Protocol):
    """Where outcomes and offsets go: `transactions.TransactionWriter`."""

    async def commit(self, outgoing: Outgoing, progress: Progress) -> None: ...


class Store(Protocol):
    """What is remembered: `join_store.JoinStore`."""

    progress: Progress | None

    def read(self, event_ids: Sequence[bytes]) -> dict[bytes, EventState]: ...
    def write(
        self, states: Mapping[bytes, EventState | None], before: Mapping[bytes, Stored], progress: Progress
    ) -> None: ...
    def next_due_us(self) -> int | None: ...
    def due(self, until_us: int, limit: int) -> tuple[list[bytes], int]: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once, how often.

    Attributes:
        batch_records: most predictions, and most labels, in one transaction.
        expiry_records: most events that expire in one transaction.
        expiry_interval_s: seconds between two looks for events that are due.
    """

    batch_records: int
    expiry_records: int
    expiry_interval_s: float


class PartitionJoin:
    """Joins one partition: `catch_up` once, then `go_round` again and again.

    Args:
        rules: what is declared, for this partition.
        partitions: number of partitions of each topic.
        limits: how much at once.
        times: event times of all partitions of this process.
        reader: gives the records.
        writer: publishes and commits.
        store: remembers.
        committed: what the last transaction committed.
        heartbeat: beats whenever the join comes round.
    """

    def __init__(
        self,
        rules: JoinRules,
        partitions: int,
        limits: Limits,
        times: PartitionTimes,
        reader: Reader,
        writer: Writer,
        store: Store,
        committed: Progress,
        heartbeat: Heartbeat,
    ) -> None:
        self.busy = False
        """Whether a batch is under way that should not be interrupted."""
        self._rules = rules
        self._partitions = partitions
        self._limits = limits
        self._times = times
        self._reader = reader
        self._writer = writer
        self._store = store
        self._committed = committed
        self._heartbeat = heartbeat
        self._gate: ExpiryGate | None = None
        self._look_at = 0.0
        self._moved_at = 0.0
        self._log = get_logger(partition=rules.partition)
        self._tracer = trace.get_tracer("headrace.outcomes")

    async def catch_up(self) -> None:
        """Bring the store to the commit, publishing nothing.

        Raises:
            RecordsLostError: a topic ends before what was joined.
            StalledError: records below the commit do not arrive.
        """
        first, ends = await self._reader.first(), await self._reader.ends()
        stored = self._store.progress or Progress(first)
        # The store is written after the commit, so whatever it has was committed, even if Kafka has lost the commit.
        target = self._committed.positions.at_least(stored.positions).at_least(first)
        topics = self._rules.predictions_topic, self._rules.labels_topic
        for topic, at, end in zip(topics, target, ends, strict=True):
            if at > end:
                raise RecordsLostError(
                    f"partition {self._rules.partition} of {topic} ends at {end}, but was joined up to {at}: the "
                    "topic has lost records. Use a new namespace, or restore it"
                )
        begin = stored.positions.at_least(first)
        if self._store.progress is not None and begin != stored.positions:
            self._log.warning("records deleted before they were joined", stored=stored.positions, first=first)
        self._log.info("catching up", store=begin, commit=target, store_is_new=self._store.progress is None)
        self._store.write({}, {}, replace(stored, positions=begin))
        self._reader.seek(begin)
        self._committed = replace(self._committed, positions=target)
        await self._join_again_below(target)
        until = max(self._committed.expired_until_us, stored.expired_until_us)
        await self._expire_again(until)
        # Of a topic whose beginning is gone, only the commit knows what time it had reached.
        clock = max(self._committed.clock, self._progress.clock, key=lambda one: one.highest_us)
        self._committed = Progress(target, clock, until)
        self._store.write({}, {}, replace(self._committed, sizes=self._progress.sizes))
        self._reader.seek(target)
        self._show(target)

    async def _join_again_below(self, target: Positions) -> None:
        loop = asyncio.get_running_loop()
        moved_at = loop.time()
        while self._progress.positions != target:
            records = await self._reader.poll_below(target, POLL_MS, self._limits.batch_records)
            at = await self._reader.positions()
            at = Positions(min(at.predictions, target.predictions), min(at.labels, target.labels))
            if at != self._progress.positions:
                moved_at = loop.time()
            elif loop.time() > moved_at + STALL_S:
                raise StalledError(
                    f"partition {self._rules.partition} is to be read up to {target}, but nothing comes beyond {at}"
                )
            if at != self._progress.positions:
                # What it would publish was published, and what it would set aside was set aside.
                states, before, batch = self._join(decode(*records, self._partitions, self._rules.label))
                self._store.write(states, before, replace(self._progress, positions=at, clock=batch.clock))
            self._heartbeat.beat()
            await asyncio.sleep(0)

    async def _expire_again(self, until_us: int) -> None:
        """Expire what the commit says has expired; what followed was published."""
        ids: list[bytes] | None = None
        while ids is None or ids:
            ids, reached = self._store.due(until_us, self._limits.expiry_records)
            states = self._store.read(ids)
            before = stored_as(states)
            expired = expire(self._rules, states, reached)
            self._store.write(expired.states, before, replace(self._progress, expired_until_us=reached))
            self._heartbeat.beat()
            await asyncio.sleep(0)

    async def go_round(self) -> None:
        """Join what has come, waiting a moment for it; expire some of what is due.

        Raises:
            KafkaFault: Kafka is away for too long, refuses, or another process has taken over.
            OutcomesError: topics or store are not usable.
        """
        predictions, labels = await self._reader.poll(POLL_MS, self._limits.batch_records)
        self._heartbeat.beat()
        at = await self._reader.positions()
        self.busy = True
        try:
            if predictions or labels:
                await self._process(decode(predictions, labels, self._partitions, self._rules.label), at)
            elif at != self._progress.positions and self._idle_long_enough():
                # Markers of transactions, which are no records: whoever compares the commit with the end sees none.
                progress = replace(self._progress, positions=at)
                await self._writer.commit(Outgoing(), progress)
                self._store.write({}, {}, progress)
                self._committed = progress
            self._times.reached(self._rules.partition, self._watermark_us, active=bool(predictions))
            await self._expire()
            self._show(at)
        finally:
            self.busy = False

    async def _process(self, decoded: Decoded, at: Positions) -> None:
        self._moved_at = asyncio.get_running_loop().time()
        with self._tracer.start_as_current_span("join batch") as span:
            states, before, batch = self._join(decoded)
            span.set_attribute("partition", self._rules.partition)
            span.set_attribute("outcomes", len(batch.outcomes))
            progress = replace(self._progress, positions=at, clock=batch.clock)
            await self._writer.commit(Outgoing(batch.outcomes, decoded.misplaced, decoded.rejected), progress)
            self._store.write(states, before, progress)
        self._committed = progress
        metrics.count(batch.counts)

    def _join(self, decoded: Decoded) -> tuple[dict[bytes, EventState], dict[bytes, Stored], BatchJoin]:
        states = self._store.read(event_ids(decoded.predictions, decoded.labels))
        before = stored_as(states)
        progress = self._progress
        batch = BatchJoin(self._rules, states, progress.clock, self._committed.positions, progress.expired_until_us)
        batch.add(decoded.predictions, decoded.labels)
        return states, before, batch

    async def _expire(self) -> None:
        loop_time = asyncio.get_running_loop().time()
        limits, progress = self._limits, self._progress
        if self._gate is None:
            if loop_time < self._look_at:
                return
            self._look_at = loop_time + limits.expiry_interval_s
            until = self._times.limit_us(self._rules.partition)
            first = self._store.next_due_us() if until > progress.expired_until_us else None
            if first is None or first > until:
                return
            # Asked for after the predictions have reached that time: see `expiry`.
            self._gate = ExpiryGate(until, (await self._reader.ends()).labels)
        if not self._gate.open_at(progress.positions.labels):
            return
        ids, reached = self._store.due(self._gate.until_us, limits.expiry_records)
        states = self._store.read(ids)
        before = stored_as(states)
        expired = expire(self._rules, states, reached)
        progress = replace(progress, expired_until_us=reached)
        await self._writer.commit(Outgoing(expired.outcomes), progress)
        self._store.write(expired.states, before, progress)
        self._committed = progress
        metrics.count(expired.counts)
        if reached == self._gate.until_us:
            self._gate = None

    def _idle_long_enough(self) -> bool:
        return asyncio.get_running_loop().time() > self._moved_at + IDLE_COMMIT_S

    @property
    def _progress(self) -> Progress:
        assert self._store.progress is not None
        return self._store.progress

    @property
    def _watermark_us(self) -> int:
        return self._progress.clock.watermark_us(self._rules.lateness_us)

    def _show(self, at: Positions) -> None:
        partition = self._rules.partition
        metrics.show_store(partition, self._progress.sizes)
        metrics.WATERMARK.labels(partition).set(self._watermark_us / 1e6)
        metrics.EXPIRED_UNTIL.labels(partition).set(self._progress.expired_until_us / 1e6)
        lag = self._reader.lag(at)
        if lag is not None:
            metrics.LAG.labels("predictions", partition).set(lag.predictions)
            metrics.LAG.labels("labels", partition).set(lag.labels)
