"""The monitor, wired."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
from aiokafka.errors import KafkaError
from opentelemetry import trace

from headrace.monitor import metrics
from headrace.monitor.alert_topic import publish_alerts, read_alerts
from headrace.monitor.announcements import Announcements
from headrace.monitor.decoding import PredictionColumns, decode_outcomes, decode_predictions
from headrace.monitor.reading import Reading
from headrace.monitor.reference_store import Kept, ReferenceStore
from headrace.monitor.stream_watch import SeasonReport, StreamWatch
from headrace.platform.kafka import TopicPartition, consumer, topic_ids, transactional_producer
from headrace.platform.logging import get_logger
from headrace.platform.pipelines import load_pipeline
from headrace.platform.topics import Topics, check_topics, deployed_name
from headrace.v1.alert_pb2 import AlertState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.monitor.settings import MonitorSettings
    from headrace.platform.health import Health
    from headrace.platform.lifecycle import Deadline

POLL_S = 0.2
LOOP_SILENCE_S = 60.0


class MonitorService:
    """Judges every season of a stream once and announces what changed.

    It keeps no state but the references: at the start it reads `alerts`, so that it knows what was announced, and then
    its topics from the beginning. A transactional id fences an earlier process of the same pipeline.

    Args:
        settings: see `MonitorSettings`.
        health: where its parts say whether they are ready.
    """

    def __init__(self, settings: MonitorSettings, health: Health) -> None:
        self._settings = settings
        self._pipeline = load_pipeline(settings.pipeline)
        deployed = deployed_name(self._pipeline.name, settings.namespace)
        self._topics = Topics(deployed)
        self._state_file = settings.state_dir / "monitor" / f"{deployed}.references.json"
        self._announcements = Announcements()
        self._rebuilt = health.component("rebuild")
        self._rebuilt.starting("reading the retained predictions and outcomes")
        self._heartbeat = health.heartbeat("monitor", LOOP_SILENCE_S)
        self._log = get_logger()
        self._tracer = trace.get_tracer("headrace.monitor")
        self._stack = AsyncExitStack()
        self._answered_us = 0
        self._committed_at = 0.0

    async def start(self) -> None:
        """Take over from an earlier process, learn what was announced, and begin to read."""
        settings, topics = self._settings, self._topics
        bootstrap = settings.kafka_bootstrap
        count = await check_topics(
            bootstrap, topics.deployed, only=[topics.predictions, topics.outcomes, topics.alerts]
        )
        # Before `alerts` is read: from here on no earlier process adds to it.
        self._producer = await self._stack.enter_async_context(
            transactional_producer(bootstrap, topics.transactional_id("monitor", 0))
        )
        self._announcements.know(await read_alerts(bootstrap, topics.alerts, settings.rebuild_stall_s))
        ids = await topic_ids(bootstrap, [topics.predictions])
        rules = self._pipeline.monitoring
        self._store = ReferenceStore(
            self._state_file,
            {
                "topic": str(ids[topics.predictions]),
                "features": f"{self._pipeline.features_fingerprint:016x}",
                "season": rules.season,
                "reference_seasons": rules.reference_seasons,
            },
        )
        self._kept = self._store.load()
        partitions = [
            TopicPartition(topic, number) for topic in (topics.predictions, topics.outcomes) for number in range(count)
        ]
        self._consumer = await self._stack.enter_async_context(
            consumer(bootstrap, partitions=partitions, group=topics.group("monitor"))
        )
        await self._consumer.seek_to_beginning(*partitions)
        kept_from = await self._consumer.beginning_offsets(partitions)
        trimmed = [partition for partition, offset in kept_from.items() if offset > 0]
        self._watch = StreamWatch(
            self._pipeline,
            capacity=settings.season_capacity,
            stored=self._kept.references,
            began_us=self._kept.began_us,
            trimmed_predictions=[one.partition for one in trimmed if one.topic == topics.predictions],
            trimmed_outcomes=[one.partition for one in trimmed if one.topic == topics.outcomes],
        )
        self._reading = Reading(self._consumer, partitions, idle_after_s=settings.idle_after_s)

    async def run(self) -> None:
        """Read, judge, announce."""
        topics = self._topics
        while True:
            records = await self._reading.poll(self._settings.poll_records, POLL_S)
            for partition, found in records.items():
                self._take(partition, [record.value for record in found])
            reports = await asyncio.to_thread(
                self._watch.close, self._reading.active(topics.predictions), self._reading.active(topics.outcomes)
            )
            if reports:
                await self._announce(reports)
            await self._keep_references()
            self._show()
            await self._commit()
            self._heartbeat.beat()

    async def stop(self, deadline: Deadline) -> None:
        """Close consumer and producer."""
        await self._stack.aclose()

    def _take(self, partition: TopicPartition, values: Sequence[bytes | None]) -> None:
        if partition.topic == self._topics.predictions:
            predictions = decode_predictions(
                values, self._pipeline.features_fingerprint, len(self._pipeline.feature_names)
            )
            left_out = predictions.left_out + self._watch.add_predictions(partition.partition, predictions)
            _count(metrics.PREDICTIONS, predictions.roles)
            self._count_faults(predictions)
            self._answered_us = max(self._answered_us, predictions.answered_us)
            topic = "predictions"
        else:
            outcomes = decode_outcomes(values)
            left_out = outcomes.left_out + self._watch.add_outcomes(partition.partition, outcomes)
            _count(metrics.OUTCOMES, outcomes.kinds)
            topic = "outcomes"
        for reason, rows in left_out.items():
            metrics.LEFT_OUT.labels(topic, reason).inc(rows)

    def _count_faults(self, predictions: PredictionColumns) -> None:
        faults = len(predictions.features) - np.isfinite(predictions.features).sum(axis=0)
        for name, rows in zip(self._pipeline.feature_names, faults.tolist(), strict=True):
            if rows:
                metrics.NOT_FINITE.labels(name).inc(rows)

    async def _announce(self, reports: Sequence[SeasonReport]) -> None:
        for report in reports:
            metrics.show(report)
            alerts = self._announcements.due(report.findings)
            if not alerts:
                continue
            with self._tracer.start_as_current_span("announce alerts"):
                await publish_alerts(self._producer, self._topics.alerts, alerts)
                self._announcements.know(alerts)
                for alert in alerts:
                    state = AlertState.Name(alert.state).removeprefix("ALERT_STATE_").lower()
                    metrics.ALERTS.labels(alert.rule, state).inc()
                    self._log.warning("alert", alert_id=alert.alert_id, state=state, detail=alert.detail)

    async def _keep_references(self) -> None:
        """Keep the references as soon as there is one more."""
        began_us, references = self._watch.drift.began_us, self._watch.drift.stored()
        if began_us != self._kept.began_us or references.keys() != self._kept.references.keys():
            self._kept = Kept(began_us, references)
            await asyncio.to_thread(self._store.save, self._kept)

    def _show(self) -> None:
        topics = self._topics
        for name, topic, watermark in (
            ("predictions", topics.predictions, self._watch.prediction_time),
            ("outcomes", topics.outcomes, self._watch.outcome_time),
        ):
            lag = self._reading.lag(topic)
            if lag is not None:
                metrics.LAG.labels(name).set(lag)
            if watermark.at_us is not None:
                metrics.WATERMARK.labels(name).set(watermark.at_us / 1e6)
        if self._answered_us:
            metrics.AGE.set(max(0.0, time.time() - self._answered_us / 1e6))
        for (rule, subject), raised in self._announcements.raised().items():
            metrics.RAISED.labels(rule, subject).set(raised)
        if self._reading.lag(topics.predictions) == 0 and self._reading.lag(topics.outcomes) == 0:
            self._rebuilt.ready()

    async def _commit(self) -> None:
        """Say how far the topics were read. Nothing depends on it, so a failure is only logged."""
        if time.monotonic() - self._committed_at < self._settings.commit_interval_s:
            return
        self._committed_at = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.commit_interval_s):
                await self._consumer.commit()
        except (KafkaError, TimeoutError) as error:
            self._log.info("positions not committed", error=str(error) or type(error).__name__)


def _count(counted: Any, by: Mapping[str, int]) -> None:
    for label, rows in by.items():
        counted.labels(label).inc(rows)
