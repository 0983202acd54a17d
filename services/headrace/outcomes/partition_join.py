"""The join of one partition, from its topics to its topics.

The order that makes it exact: first the Kafka transaction, which publishes the outcomes of a batch and commits the
offsets that they were made from, then the store, which keeps what the batch changed together with the same offsets.
After a crash at any moment the store is at the commit, or behind it by what was not written. What lies between is read
again and joined without being published (`join` says why that is enough), and then the join goes on as if nothing had
happened. A store that is gone is one that is behind by everything.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from headrace.outcomes import metrics
from headrace.outcomes.decoding import Decoded, decode
from headrace.outcomes.errors import RecordsLostError, StalledError
from headrace.outcomes.event_state import stored_as
from headrace.outcomes.expiry import ExpiryGate, PartitionTimes, expire
from headrace.outcomes.join import BatchJoin, JoinRules, event_ids
from headrace.outcomes.join_store import JoinStore, open_store
from headrace.outcomes.progress import Positions, Progress
from headrace.outcomes.reading import PartitionReader, Records, partition_reader
from headrace.outcomes.settings import OutcomesSettings
from headrace.outcomes.transactions import SERVICE, Outgoing, TransactionWriter, transaction_writer
from headrace.platform import kafka
from headrace.platform.health import Heartbeat
from headrace.platform.logging import get_logger
from headrace.platform.topics import Topics

POLL_MS = 100
STALL_S = 60.0
IDLE_COMMIT_S = 0.2


@dataclass(frozen=True, slots=True)
class JoinSetup:
    """What the joins of all partitions share.

    Attributes:
        settings: of the service.
        topics: of the deployed pipeline.
        partitions: number of partitions of each topic.
        identity: names the topics by their ids.
        times: event times of the partitions of this process.
    """

    settings: OutcomesSettings
    topics: Topics
    partitions: int
    identity: str
    times: PartitionTimes


class PartitionJoin:
    """Joins one partition.

    Args:
        setup: what all partitions share.
        rules: what is declared, for this partition.
        directory: of this partition's store.
        heartbeat: beats whenever the join comes round.
    """

    def __init__(self, setup: JoinSetup, rules: JoinRules, directory: Path, heartbeat: Heartbeat) -> None:
        self.ready = asyncio.Event()
        """Set once it joins what comes."""
        self._setup = setup
        self._rules = rules
        self._directory = directory
        self._heartbeat = heartbeat
        self._stopping = False
        self._uninterruptible = False
        self._task: asyncio.Task[None] | None = None
        self._log = get_logger(partition=rules.partition)
        self._reader: PartitionReader
        self._writer: TransactionWriter
        self._store: JoinStore
        self._committed: Progress
        self._gate: ExpiryGate | None = None
        self._look_at = 0.0
        self._moved_at = 0.0

    async def run(self) -> None:
        """Take over the partition and join it until stopped.

        Raises:
            KafkaFault: Kafka is away for too long, refuses, or another process has taken over.
            OutcomesError: topics or store are not usable.
        """
        self._task = asyncio.current_task()
        try:
            async with AsyncExitStack() as opened:
                await self._take_over(opened)
                if not self._stopping:
                    await self._catch_up()
                    self.ready.set()
                while not self._stopping:
                    await self._go_round()
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        finally:
            self.ready.clear()
            self._heartbeat.suspend()
            self._setup.times.forget(self._rules.partition)
            metrics.forget(self._rules.partition)

    def stop(self) -> None:
        """End after the batch that is under way, or at once where there is none; `run` returns then."""
        self._stopping = True
        if self._task is not None and not self._uninterruptible:
            self._task.cancel()

    async def _take_over(self, opened: AsyncExitStack) -> None:
        settings, topics, partition = self._setup.settings, self._setup.topics, self._rules.partition
        bootstrap = settings.kafka_bootstrap
        # First of all: from here on no earlier process commits anything.
        self._writer = await opened.enter_async_context(
            transaction_writer(bootstrap, topics, partition, settings.transaction_timeout_s)
        )
        self._reader = await opened.enter_async_context(
            partition_reader(bootstrap, topics, partition, fetch_wait_ms=settings.fetch_wait_ms)
        )
        self._uninterruptible = True
        try:
            self._store = await asyncio.to_thread(open_store, self._directory, self._setup.identity)
        finally:
            self._uninterruptible = False
        opened.callback(self._store.close)
        self._committed = await self._read_commit()

    async def _read_commit(self) -> Progress:
        topics, partition = self._setup.topics, self._rules.partition
        async with kafka.KafkaAdmin(self._setup.settings.kafka_bootstrap, timeout_s=kafka.START_TIMEOUT_S) as admin:
            found = await admin.committed(topics.group(SERVICE))
        predictions, metadata = found.get(kafka.TopicPartition(topics.predictions, partition), (0, ""))
        labels, _ = found.get(kafka.TopicPartition(topics.labels, partition), (0, ""))
        return Progress.committed(Positions(predictions, labels), metadata)

    async def _catch_up(self) -> None:
        """Bring the store to the commit, publishing nothing."""
        first, ends = await self._reader.first(), await self._reader.ends()
        stored = self._store.progress or Progress(first)
        # The store is written after the commit, so whatever it has was committed, even if Kafka has lost the commit.
        target = self._committed.positions.at_least(stored.positions).at_least(first)
        for topic, at, end in zip(("predictions", "labels"), target, ends, strict=True):
            if at > end:
                raise RecordsLostError(
                    f"{self._setup.topics.deployed}.{topic}/{self._rules.partition} ends at {end}, but was joined up "
                    f"to {at}: the topic has lost records. Use a new namespace, or restore it"
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
        settings = self._setup.settings
        loop = asyncio.get_running_loop()
        moved_at = loop.time()
        while self._progress.positions != target:
            records = await self._reader.poll_below(target, POLL_MS, settings.batch_records)
            at = await self._reader.positions()
            at = Positions(min(at.predictions, target.predictions), min(at.labels, target.labels))
            if at != self._progress.positions:
                moved_at = loop.time()
            elif loop.time() > moved_at + STALL_S:
                raise StalledError(
                    f"partition {self._rules.partition} is to be read up to {target}, but nothing comes beyond {at}"
                )
            if at != self._progress.positions:
                self._join(decode(*records, self._setup.partitions), at)
            self._heartbeat.beat()
            await asyncio.sleep(0)

    async def _expire_again(self, until_us: int) -> None:
        """Expire what the commit says has expired; what followed was published."""
        ids: list[bytes] | None = None
        while ids is None or ids:
            ids, reached = self._store.due(until_us, self._setup.settings.expiry_records)
            states = self._store.read(ids)
            before = stored_as(states)
            expired = expire(self._rules, states, reached)
            self._store.write(expired.states, before, replace(self._progress, expired_until_us=reached))
            self._heartbeat.beat()
            await asyncio.sleep(0)

    async def _go_round(self) -> None:
        settings = self._setup.settings
        records = await self._reader.poll(POLL_MS, settings.batch_records)
        self._heartbeat.beat()
        at = await self._reader.positions()
        self._uninterruptible = True
        try:
            if records.predictions or records.labels:
                await self._process(records, at)
            elif at != self._progress.positions and self._idle_long_enough():
                # Markers of transactions, which are no records: whoever compares the commit with the end sees none.
                progress = replace(self._progress, positions=at)
                await self._writer.commit(Outgoing(), progress)
                self._store.write({}, {}, progress)
                self._committed = progress
            self._setup.times.reached(self._rules.partition, self._watermark_us, active=bool(records.predictions))
            await self._expire()
            self._show(at)
        finally:
            self._uninterruptible = False

    async def _process(self, records: Records, at: Positions) -> None:
        self._moved_at = asyncio.get_running_loop().time()
        decoded = decode(*records, self._setup.partitions)
        ids = event_ids(decoded.predictions, decoded.labels)
        states = self._store.read(ids)
        before = stored_as(states)
        batch = BatchJoin(
            self._rules, states, self._progress.clock, self._committed.positions, self._progress.expired_until_us
        )
        batch.add(decoded.predictions, decoded.labels)
        progress = replace(self._progress, positions=at, clock=batch.clock)
        await self._writer.commit(Outgoing(batch.outcomes, decoded.misplaced, decoded.rejected), progress)
        self._store.write(states, before, progress)
        self._committed = progress
        metrics.count(batch.counts)

    def _join(self, decoded: Decoded, at: Positions) -> None:
        """Join a batch that lies below the commit; what it would publish was published."""
        states = self._store.read(event_ids(decoded.predictions, decoded.labels))
        before = stored_as(states)
        batch = BatchJoin(
            self._rules, states, self._progress.clock, self._committed.positions, self._progress.expired_until_us
        )
        batch.add(decoded.predictions, decoded.labels)
        assert not batch.outcomes
        self._store.write(states, before, replace(self._progress, positions=at, clock=batch.clock))

    async def _expire(self) -> None:
        loop_time = asyncio.get_running_loop().time()
        settings, progress = self._setup.settings, self._progress
        if self._gate is None:
            if loop_time < self._look_at:
                return
            self._look_at = loop_time + settings.expiry_interval_s
            until = self._setup.times.limit_us(self._rules.partition)
            first = self._store.next_due_us() if until > progress.expired_until_us else None
            if first is None or first > until:
                return
            # Asked for after the predictions have reached that time: see `expiry`.
            self._gate = ExpiryGate(until, (await self._reader.ends()).labels)
        if not self._gate.open_at(progress.positions.labels):
            return
        ids, reached = self._store.due(self._gate.until_us, settings.expiry_records)
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
