"""The gateway: where its parts are put together."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from redis.exceptions import RedisError

from headrace.gateway.access_door import Door
from headrace.gateway.access_grpc import GrpcAccess
from headrace.gateway.admission import Admission, ClientQuotas
from headrace.gateway.answer_log import AnswerLog
from headrace.gateway.answer_records import AnswerRecords, LocalRecords
from headrace.gateway.batching import Batcher, Flush
from headrace.gateway.cache_metrics import CACHES
from headrace.gateway.calls import Calls, RequestBatcher
from headrace.gateway.circuit_breaker import CircuitBreaker
from headrace.gateway.feature_cache import FeatureCache
from headrace.gateway.feature_reading import FeatureReading
from headrace.gateway.grpc_pressure import pressure_options
from headrace.gateway.grpc_server import GrpcServer
from headrace.gateway.grpc_service import FeatureService, GrpcCalls, PredictionService
from headrace.gateway.http_server import HttpServer
from headrace.gateway.in_process_models import InProcessModels
from headrace.gateway.inference import Inference
from headrace.gateway.inference_cache import InferenceCache
from headrace.gateway.kafka_scorer import KafkaScorer
from headrace.gateway.lease_renewal import LeaseRenewal
from headrace.gateway.loop_load import LoopLoad, wanted_s
from headrace.gateway.loop_rest import LoopRest
from headrace.gateway.metrics import BATCH_ROWS, FLUSHES, QUEUE_TIME, UNSENT_ROWS
from headrace.gateway.model_scores import ModelBatcher, ModelScores
from headrace.gateway.prediction_encoding import PredictionEncoder
from headrace.gateway.route_log import RouteLog
from headrace.gateway.routing import Routing
from headrace.gateway.scoring import Scoring
from headrace.gateway.settings import GatewaySettings
from headrace.gateway.shadow_scoring import ShadowScoring
from headrace.gateway.spool import IN_USE, Spool, SpoolError
from headrace.gateway.spool_adoption import SpoolAdoption
from headrace.gateway.spool_directories import is_in_use, spools_of
from headrace.gateway.spool_shipping import SpoolShipping
from headrace.gateway.triton_pool import TritonPool
from headrace.gateway.unsent_answers import UnsentAnswers
from headrace.gateway.vector_scoring import VectorScoring
from headrace.gateway.warm_up import WarmUp
from headrace.pipeline.evaluation import MACHINE_CODE, load_kernel
from headrace.pipeline.state import compile_plan
from headrace.platform import redis
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.event_codec import CheckedEvent, event_columns
from headrace.platform.feature_state import FeatureStateReader
from headrace.platform.health import Component, Health
from headrace.platform.leases import Leases
from headrace.platform.lifecycle import Deadline
from headrace.platform.logging import get_logger
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis_connection import RedisConnections
from headrace.platform.signing import Verifier
from headrace.platform.topics import Topics, check_topics, deployed_name

HEARTBEAT_S = 120.0
REDIS_REST_S = 0.5
WARM_UP_S = 2.0
RESOLVE_PATIENCE_S = 30.0
SPOOL_PATIENCE_S = 60.0
# Small reads and writes let other clients of the same Redis in between.
REQUEST_ROWS = 512
# What a batch costs is mostly paid on the event loop: two at a time would only be smaller, unless they are full.
REQUESTS_IN_FLIGHT = 2
MODEL_IN_FLIGHT = 2
# Shadows may have as much under way as this many full batches.
SHADOW_BATCHES = 4


def _observe(stage: str, rows: int, waited_s: float, reason: Flush) -> None:
    BATCH_ROWS.labels(stage).observe(rows)
    QUEUE_TIME.labels(stage).observe(waited_s)
    FLUSHES.labels(stage, reason.value).inc()


class GatewayService:
    """Answers events over gRPC and from Kafka.

    Args:
        settings: of the service.
        health: told what it waits for.

    Raises:
        PipelineLoadError: the pipeline cannot be loaded.
        KeyFileError: the key that models are verified with is not a key.
        DoorError, AccessFileError, TlsError: the settings of the door, or the files they name, are not fit.
    """

    def __init__(self, settings: GatewaySettings, health: Health) -> None:
        self._settings = settings
        self._health = health
        self._pipeline = load_pipeline(settings.pipeline)
        self._plan = compile_plan(self._pipeline)
        self._deployed = deployed_name(self._pipeline.name, settings.namespace)
        self._door = Door(settings, self._deployed, settings.hosts)
        self._topics = Topics(self._deployed, definition=settings.definition)
        self._log = get_logger()
        self._routing = Routing(self._pipeline.features_fingerprint)
        self._models = InProcessModels(ArtifactStore(settings.artifacts), Verifier.read(settings.signing_public_key))
        self._routes = RouteLog(
            settings.kafka_bootstrap, self._topics, self._routing, self._models, health.component("routes")
        )
        self._shipping = self._shipping_of(settings.instance, health.component("spool"))
        self._warm = health.component("warm-up")
        self._warm.starting("the model has not answered yet")
        self._assignment = health.component("assignment") if settings.kafka_scorer else None
        self._scorer: KafkaScorer | None = None
        self._scoring_task: asyncio.Task[None] | None = None
        self._spool: Spool | None = None
        self._server: GrpcServer | None = None
        self._http: HttpServer | None = None

    async def start(self) -> None:
        """Connect, take up the spool, and listen. Calls are refused until there is a route table."""
        settings, topics = self._settings, self._topics
        needed = (topics.events, topics.vectors, topics.predictions, topics.routes, topics.alerts, topics.rejected)
        await check_topics(settings.kafka_bootstrap, topics.deployed, only=needed)
        timeout_s = settings.redis_timeout_ms / 1000
        self._redis = redis.connect(settings.redis_url)
        self._connections = RedisConnections(settings.redis_url)
        self._triton = TritonPool(
            settings.triton_urls,
            timeout_s=settings.triton_timeout_ms / 1000,
            probe_s=settings.triton_probe_ms / 1000,
            hedge_s=settings.triton_hedge_ms / 1000,
            keepalive_s=settings.triton_keepalive_s,
            statistics_s=settings.triton_statistics_s,
        )
        breaker = CircuitBreaker(REDIS_REST_S, time.monotonic)
        local = LocalRecords(settings.idempotency_window_s, settings.idempotency_local_bytes)
        CACHES.watch("answers", local)
        records = AnswerRecords(
            self._connections,
            self._deployed,
            local,
            window_s=settings.idempotency_window_s,
            timeout_s=timeout_s,
            breaker=breaker,
        )
        self._lease = LeaseRenewal(
            Leases(self._redis, self._deployed), settings.instance, self._routing, breaker, self._models.unscored
        )
        spools = spools_of(settings.state_dir, self._deployed)
        self._adoption = SpoolAdoption(
            spools,
            settings.instance_group or settings.instance,
            settings.instance,
            records,
            lambda name: self._shipping_of(name, Component(name)),
            settings.spool_adopt_after_s,
        )
        if settings.durable_log:
            await self._until_unused(spools / settings.instance)
        self._spool = Spool(
            spools / settings.instance if settings.durable_log else None,
            limit_bytes=settings.spool_bytes,
            position=await self._shipping.position(),
            changed=self._shipping.changed,
        )
        answer_log = AnswerLog(self._spool, records)
        await answer_log.resolve(RESOLVE_PATIENCE_S)
        feature_logs = FeatureCache(settings.feature_cache_bytes, settings.feature_cache_ms / 1000, time.monotonic)
        CACHES.watch("features", feature_logs)
        reading = FeatureReading(
            self._plan,
            FeatureStateReader(self._connections, self._plan, self._deployed),
            records,
            timeout_s=timeout_s,
            breaker=breaker,
            kernel=await asyncio.to_thread(load_kernel, settings.state_dir / MACHINE_CODE),
            cache=feature_logs,
        )
        await self._read_once(reading)
        inference = Inference(self._routing, self._triton, self._models)
        window_s = None if settings.batch_window_ms is None else settings.batch_window_ms / 1000
        self._rows: ModelBatcher = Batcher(
            inference.infer,
            name="model",
            max_rows=settings.batch_rows,
            window_s=window_s,
            max_queued_rows=settings.queue_rows,
            max_in_flight=MODEL_IN_FLIGHT,
            observe=partial(_observe, "model"),
        )
        encoder = PredictionEncoder(self._pipeline)
        scores = InferenceCache(settings.inference_cache_bytes)
        CACHES.watch("scores", scores)
        model_scores = ModelScores(self._routing, self._rows, scores)
        self._shadows = ShadowScoring(
            self._routing,
            model_scores,
            answer_log,
            encoder,
            self._pipeline.model.decision,
            most_rows=SHADOW_BATCHES * REQUEST_ROWS,
        )
        scoring = Scoring(
            self._pipeline,
            settings.instance,
            self._routing,
            reading,
            model_scores,
            answer_log,
            self._shadows,
            encoder,
        )
        wanted = wanted_s()
        self._requests: RequestBatcher = Batcher(
            scoring.answer,
            name="requests",
            max_rows=REQUEST_ROWS,
            window_s=window_s,
            max_queued_rows=settings.queue_rows,
            max_in_flight=REQUESTS_IN_FLIGHT,
            rest=LoopRest(LoopLoad(wanted).rest, wanted),
            observe=self._requests_left,
        )
        clock = asyncio.get_running_loop().time
        quotas = ClientQuotas(
            settings.quota_rows_per_s, settings.quota_burst_rows, settings.quota_callers, time.monotonic
        )
        self._admission = Admission(
            lambda: self._requests.queued_rows,
            lambda: self._requests.oldest_wait_s,
            clock,
            target_s=settings.queue_target_ms / 1000,
            interval_s=settings.queue_interval_ms / 1000,
            quotas=quotas,
            batch_rows=REQUEST_ROWS,
        )
        if self._assignment is not None:
            heartbeat = self._health.heartbeat("kafka_scorer", HEARTBEAT_S)
            heartbeat.suspend()
            self._scorer = KafkaScorer(
                settings.kafka_bootstrap,
                topics,
                settings.instance,
                VectorScoring(self._pipeline, self._routing, model_scores, records, self._shadows, encoder),
                self._routing,
                len(self._pipeline.feature_names),
                self._assignment,
                heartbeat,
                settings.score_batch_records,
                leaves=bool(settings.instance_group),
            )
        self._warm_up = WarmUp(model_scores, self._routing, self._models, len(self._pipeline.feature_names))
        calls = Calls(self._pipeline, self._deployed, scoring, self._requests, self._spool, self._admission)
        shared = GrpcCalls(calls, settings.request_timeout_s, GrpcAccess(self._door.control))
        unsent = UnsentAnswers(settings.grpc_unsent_rows)
        UNSENT_ROWS.set_function(lambda: unsent.rows)
        self._server = GrpcServer(
            f"{settings.grpc_host}:{settings.grpc_port}",
            PredictionService(shared, settings.stream_in_flight, unsent),
            FeatureService(shared),
            self._health,
            self._door,
            share_port=bool(settings.instance_group),
            options=pressure_options(settings.grpc_pending_calls, settings.grpc_connection_streams),
            turn_away=self._admission.turn_away,
        )
        if settings.http_port is not None:
            self._http = HttpServer(calls, self._deployed, settings, self._door)
        if not settings.instance_group:
            await self._listen()

    def _requests_left(self, rows: int, waited_s: float, reason: Flush) -> None:
        _observe("requests", rows, waited_s, reason)
        self._admission.left(rows, waited_s)

    def _shipping_of(self, instance: str, component: Component) -> SpoolShipping:
        settings = self._settings
        return SpoolShipping(settings.kafka_bootstrap, self._topics, instance, settings.spool_ship_ms / 1000, component)

    async def _until_unused(self, spool: Path) -> None:
        """Wait for who ships what an earlier process of this name left, before taking over that name in Kafka."""
        deadline = Deadline(SPOOL_PATIENCE_S)
        if is_in_use(spool):
            self._log.warning("another process uses the spool", spool=spool.name)
        while is_in_use(spool):
            if deadline.expired:
                raise SpoolError(IN_USE.format(spool))
            await asyncio.sleep(0.1)

    async def _listen(self) -> None:
        assert self._server is not None
        port = await self._server.start()
        self._log.info("gateway listening", grpc_host=self._settings.grpc_host, grpc_port=port, pipeline=self._deployed)
        if self._http is not None:
            port = await self._http.start()
            self._log.info("gateway listening for HTTP", http_host=self._settings.http_host, http_port=port)

    async def _become_ready(self) -> None:
        await self._warm_up.run()
        if self._settings.instance_group:
            # Only now: who listens on a shared port gets a share of its callers, whether it can answer or not.
            await self._listen()
        self._warm.ready()

    async def _read_once(self, reading: FeatureReading) -> None:
        """Connect to Redis and evaluate once, so that the first caller does not pay for it."""
        nobody = CheckedEvent(
            "warm-up",
            1,
            [""] * len(self._pipeline.event.texts),
            [0.0] * len(self._pipeline.event.numbers),
            answered=False,
        )
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(WARM_UP_S):
                await self._redis.ping()
        await reading.read(event_columns(self._pipeline, [nobody]))

    async def run(self) -> None:
        """Serve until cancelled."""
        assert self._spool is not None
        assert self._server is not None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._routes.run(), name="routes")
                tasks.create_task(self._lease.run(), name="lease")
                tasks.create_task(self._door.control.run(), name="access")
                tasks.create_task(self._triton.run(), name="triton")
                tasks.create_task(self._shipping.run(self._spool), name="spool-shipping")
                tasks.create_task(self._become_ready(), name="warm-up")
                if self._settings.durable_log:
                    tasks.create_task(self._adoption.run(), name="spool-adoption")
                if self._scorer is not None:
                    self._scoring_task = tasks.create_task(self._scorer.run(), name="kafka-scorer")
        except BaseExceptionGroup as group:
            # The first failure is the cause; the others are its consequence.
            raise group.exceptions[0] from group

    async def drain(self, deadline: Deadline) -> None:
        """Take in nothing new, answer what is queued, commit what is scored, ship the spool."""
        assert self._spool is not None
        assert self._server is not None
        try:
            async with asyncio.timeout(deadline.remaining() * 0.8):
                grace_s = deadline.remaining() * 0.5
                servers = [one for one in (self._server, self._http) if one is not None]
                await asyncio.gather(*(one.stop(grace_s) for one in servers))
                if self._scorer is not None and self._scoring_task is not None:
                    self._scorer.stop()
                    await asyncio.wait({self._scoring_task})
                await self._requests.drain()
                await self._shadows.drain()
                await self._rows.drain()
                await self._shipping.flush(self._spool)
        except TimeoutError:
            # What is in the spool is shipped by the next process.
            self._log.warning("not all was finished in time", spool_bytes=self._spool.waiting_bytes)

    async def stop(self, deadline: Deadline) -> None:
        """Close what `start` opened."""
        async with asyncio.timeout(deadline.remaining()):
            if self._server is not None:
                await self._server.stop(0)
                if self._http is not None:
                    await self._http.stop(0)
                await self._shadows.close()
                await self._requests.close()
                await self._rows.close()
            if self._spool is not None:
                self._spool.close()
            if hasattr(self, "_lease"):
                await self._lease.release()
            if hasattr(self, "_triton"):
                await self._triton.close()
            if hasattr(self, "_redis"):
                await self._connections.aclose()
                await self._redis.aclose()
