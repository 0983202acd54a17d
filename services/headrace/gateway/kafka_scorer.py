"""Scores `vectors` into `predictions`, each exactly once: predictions and offsets go in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import ConsumerRebalanceListener, OffsetAndMetadata
from aiokafka.errors import KafkaError

from headrace.gateway.errors import GatewayError
from headrace.gateway.metrics import REDELIVERED_VECTORS, SCORED_VECTORS, SCORER_RESTARTS, UNUSABLE_VECTORS
from headrace.gateway.routing import Routing
from headrace.gateway.vector_scoring import ScoredVectors, VectorScoring
from headrace.gateway.vector_stream import VectorBatch, highest_of, take
from headrace.platform import kafka
from headrace.platform.health import Component, Heartbeat
from headrace.platform.kafka import KafkaAdmin, KafkaRefused, KafkaUnavailable, TopicPartition
from headrace.platform.logging import get_logger
from headrace.platform.record_batches import send_keyed
from headrace.platform.topics import Topics
from headrace.v1.alert_pb2 import ALERT_STATE_RAISED, Alert
from headrace.v1.vector_pb2 import FeatureVector

SERVICE = "gateway"
UNKNOWN_FINGERPRINT = "unknown_fingerprint"
IDLE_MS = 200
FETCH_WAIT_MS = 20
RETRY_S = 0.5
MOST_REFUSALS = 5


@dataclass(frozen=True)
class _Scored:
    generation: int
    batch: VectorBatch
    predictions: ScoredVectors


class KafkaScorer(ConsumerRebalanceListener):  # type: ignore[misc]
    """Reads vectors as a member of the gateways' group.

    While one batch is committed the next one is scored. When partitions move, what is not committed yet is dropped:
    whoever gets them reads on from the commit.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        instance: name of this process.
        scoring: scores vectors.
        routing: which version answers.
        width: number of features.
        assignment: ready while this process holds an assignment and scores it.
        heartbeat: of the loop.
        most: largest batch, in records.
        leaves: whether the partitions go to others at once when it stops, as it may not come back.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Topics,
        instance: str,
        scoring: VectorScoring,
        routing: Routing,
        width: int,
        assignment: Component,
        heartbeat: Heartbeat,
        most: int,
        *,
        leaves: bool = False,
    ) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._instance = instance
        self._group = topics.definition_group(SERVICE)
        self._scoring = scoring
        self._routing = routing
        self._assignment = assignment
        self._heartbeat = heartbeat
        self._most = most
        self._width = width
        self._leaves = leaves
        self._log = get_logger("kafka_scorer")
        self._alerted: set[int] = set()
        self._stopping = asyncio.Event()
        self._failures = 0
        self._reset()

    def _reset(self) -> None:
        self._consumer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._generation = 0
        self._committing = asyncio.Lock()
        self._failure: BaseException | None = None
        self._highest: dict[int, int] = {}
        self._waiting: dict[int, int] = {}

    async def run(self) -> None:
        """Score until `stop` or cancelled; a fault of Kafka that may pass makes it begin anew.

        Raises:
            ProducerFenced: another process has this instance's name.
            KafkaFault: Kafka refuses what is asked, again and again.
        """
        while not self._stopping.is_set():
            self._heartbeat.beat()
            self._reset()
            try:
                await self._run()
            except (KafkaUnavailable, KafkaRefused) as error:
                # A broker that comes back may refuse what an earlier producer began; a new one is another matter.
                self._failures += 1
                if isinstance(error, KafkaRefused) and self._failures > MOST_REFUSALS:
                    raise
                SCORER_RESTARTS.inc()
                self._assignment.not_ready(f"Kafka is away: {error}")
                self._log.warning("scoring from Kafka begins anew", reason=str(error))
                self._heartbeat.beat()
                await asyncio.sleep(RETRY_S)
        self._heartbeat.suspend()

    def stop(self) -> None:
        """Take no more batches; `run` returns when the last one is committed."""
        self._stopping.set()

    async def _run(self) -> None:
        # The producer first: it ends what an earlier process of this name left open, before offsets are read.
        async with (
            kafka.transactional_producer(
                self._bootstrap, self._topics.transactional_id(f"{SERVICE}-scorer", self._instance)
            ) as producer,
            kafka.consumer(
                self._bootstrap,
                topics=[self._topics.vectors],
                group=self._group,
                listener=self,
                fetch_max_wait_ms=FETCH_WAIT_MS,
                # A member of a fixed name is let in again at once after a kill.
                group_instance_id=f"{SERVICE}-{self._instance}",
            ) as consumer,
        ):
            self._consumer.set_result(consumer)
            previous: asyncio.Task[None] | None = None
            try:
                while not self._stopping.is_set():
                    self._heartbeat.beat()
                    scored = await self._next(consumer)
                    if previous is not None:
                        await previous
                        previous = None
                    if scored is not None:
                        previous = asyncio.create_task(self._commit(producer, scored), name="commit-predictions")
                if previous is not None:
                    await previous
                if self._leaves:
                    # A member of a fixed name does not leave by itself: its partitions would wait for it to time out.
                    consumer._coordinator._group_instance_id = None
            finally:
                if previous is not None and not previous.done():
                    previous.cancel()
                    await asyncio.wait({previous})

    async def _next(self, consumer: Any) -> _Scored | None:
        """The next batch, scored; None where nothing came, or the partitions moved meanwhile."""
        if not await self._can_score():
            return None
        try:
            found: Mapping[TopicPartition, Sequence[Any]] = await consumer.getmany(
                timeout_ms=IDLE_MS, max_records=self._most
            )
        except (KafkaError, OSError) as error:
            raise kafka.translate(error, f"{self._topics.vectors} cannot be read") from error
        if self._failure is not None:
            raise self._failure
        # Chosen after the wait: what came behind a new table must not be scored by the version before it.
        choice = self._routing.champion()
        generation = self._generation
        # What was fetched before its partition was taken up is dropped here, and read again.
        records = {at.partition: of for at, of in found.items() if at.partition in self._highest}
        if not records:
            return None
        batch = take(records, self._highest, choice.version.features_fingerprint, self._width)
        for partition, (offset, vector) in batch.waiting.items():
            consumer.seek(TopicPartition(self._topics.vectors, partition), offset)
            consumer.pause(TopicPartition(self._topics.vectors, partition))
            self._waiting[partition] = vector.features_fingerprint
        self._highest |= batch.highest
        predictions = await self._score(batch.vectors)
        if generation != self._generation:
            return None
        return _Scored(generation, batch, predictions)

    async def _can_score(self) -> bool:
        """Whether there is a version to score with; partitions that waited for it are read again."""
        if not self._routing.has_table:
            try:
                async with asyncio.timeout(IDLE_MS / 1000):
                    await self._routing.changed()
            except TimeoutError:
                return False
        takes = self._routing.champion().version.features_fingerprint
        fits = [partition for partition, of in self._waiting.items() if of == takes]
        if fits:
            consumer = await self._consumer
            consumer.resume(*(TopicPartition(self._topics.vectors, partition) for partition in fits))
            for partition in fits:
                del self._waiting[partition]
            self._note_assignment()
        return True

    async def _score(self, vectors: Sequence[FeatureVector]) -> ScoredVectors:
        while True:
            try:
                return await self._scoring.score(vectors)
            except GatewayError as error:
                # Nothing answers, not even the model in this process. The vectors wait; their offsets are not passed.
                self._log.warning("vectors wait for a model", reason=str(error))
                self._heartbeat.beat()
                await asyncio.sleep(RETRY_S)

    async def _commit(self, producer: Any, scored: _Scored) -> None:
        async with self._committing:
            if scored.generation != self._generation:
                return
            batch = scored.batch
            async with kafka.transaction(producer):
                predictions = scored.predictions
                sent: list[Any] = list(
                    await send_keyed(producer, self._topics.predictions, predictions.keys, predictions.records)
                )
                for rejected in batch.unusable:
                    sent.append(
                        await producer.send(
                            self._topics.rejected, rejected.SerializeToString(), key=rejected.key or None, partition=0
                        )
                    )
                for _, vector in batch.waiting.values():
                    sent += await self._alert(producer, vector)
                await asyncio.gather(*sent)
                if batch.next_offsets:
                    await producer.send_offsets_to_transaction(
                        {
                            TopicPartition(self._topics.vectors, partition): OffsetAndMetadata(
                                offset, batch.metadata(partition)
                            )
                            for partition, offset in batch.next_offsets.items()
                        },
                        self._group,
                    )
        self._failures = 0
        scored.predictions.count()
        SCORED_VECTORS.inc(len(batch.vectors))
        REDELIVERED_VECTORS.inc(batch.redelivered)
        UNUSABLE_VECTORS.inc(len(batch.unusable))
        if batch.waiting:
            self._note_assignment()

    async def _alert(self, producer: Any, vector: FeatureVector) -> list[Any]:
        """Says once that vectors of features nobody can score have come."""
        if vector.features_fingerprint in self._alerted:
            return []
        self._alerted.add(vector.features_fingerprint)
        subject = f"{vector.features_fingerprint:016x}"
        alert = Alert(
            alert_id=f"{UNKNOWN_FINGERPRINT}/{subject}/{vector.event_time_us}",
            rule=UNKNOWN_FINGERPRINT,
            subject=subject,
            event_time_us=vector.event_time_us,
            state=ALERT_STATE_RAISED,
            detail=f"vectors of features {subject} wait: no model version that takes them is routed",
        )
        self._log.error("vectors of unknown features wait", features_fingerprint=subject)
        key = f"{UNKNOWN_FINGERPRINT}/{subject}".encode()
        return [await producer.send(self._topics.alerts, alert.SerializeToString(), key=key)]

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let the commit that is under way finish, and drop what is not committed."""
        self._generation += 1
        async with self._committing:
            self._highest, self._waiting = {}, {}
        self._assignment.starting("rebalancing")

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Read on from what is committed."""
        # The consumer swallows what a listener raises, so the loop raises it.
        try:
            consumer = await self._consumer
            partitions = list(assigned)
            async with KafkaAdmin(self._bootstrap) as admin:
                committed = await admin.committed(self._group)
                begin = await admin.begin_offsets([self._topics.vectors])
            # Without a pause from here on: what is fetched behind a seek must find its partition taken up. What was
            # fetched before and is handed out after comes again, and is known by its source offset.
            for at in partitions:
                offset, metadata = committed.get(at, (begin[at], ""))
                if offset < begin[at]:
                    self._log.error(
                        "vectors were deleted before they were scored",
                        partition=at.partition,
                        first=offset,
                        last=begin[at] - 1,
                    )
                consumer.seek(at, max(offset, begin[at]))
                self._highest[at.partition] = highest_of(metadata)
            self._note_assignment()
            self._log.info("partitions assigned", partitions={at.partition: committed.get(at) for at in partitions})
        except Exception as error:  # noqa: BLE001 (raised by the loop)
            self._failure = error

    def _note_assignment(self) -> None:
        if self._waiting:
            waiting = ", ".join(f"{partition} ({of:016x})" for partition, of in sorted(self._waiting.items()))
            self._assignment.not_ready(f"partitions wait at vectors of unknown features: {waiting}")
        else:
            self._assignment.ready()
