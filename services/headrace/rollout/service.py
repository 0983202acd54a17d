"""Wires the rollout: what it reads, decides and does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from headrace.platform.artifacts import ArtifactStore
from headrace.platform.health import Health
from headrace.platform.leases import LEASE_TTL_S, GatewayLease, Leases
from headrace.platform.lifecycle import Deadline
from headrace.platform.logging import get_logger
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis import RedisUnavailable, connect
from headrace.platform.signing import Verifier
from headrace.platform.topics import Topics, check_topics, deployed_name
from headrace.rollout import metrics
from headrace.rollout.checks import Expected, VersionRefusedError
from headrace.rollout.decisions import Announcement, Rollout
from headrace.rollout.delivery import Delivery, NotNowError, Parent
from headrace.rollout.guard_rails import Crossed, alerts_between
from headrace.rollout.guarding import Guard
from headrace.rollout.live_scores import Rails
from headrace.rollout.mlflow_registry import MlflowRegistry
from headrace.rollout.registrar import Registrar
from headrace.rollout.reporting import RouteReport, ServerReport
from headrace.rollout.route_log import News, RouteLog, open_route_log
from headrace.rollout.server_actions import Load, Unload
from headrace.rollout.settings import RolloutSettings
from headrace.rollout.triton import TritonError, TritonServer
from headrace.v1 import model_pb2

IDLE_S = 1.0
LOOP_WITHIN_S = 60.0
REGISTRY_CLOSE_S = 3.0

log = get_logger("rollout")


class RolloutService:
    """The rollout of one deployed pipeline.

    One task reads announcements, one writes route tables, one reads the gateways' leases, and one for each Triton
    server does what is to be done there. They share the state, `decisions.Rollout`, and wake each other.

    Args:
        settings: checked settings.
        health: where to report.
    """

    def __init__(self, settings: RolloutSettings, health: Health) -> None:
        self._settings = settings
        self._health = health
        self._models_health = health.component("models")
        self._triton_health = health.component("triton")
        self._redis_health = health.component("redis")
        self._opened = AsyncExitStack()
        self._servers: dict[str, TritonServer] = {}
        self._registrar: Registrar | None = None
        self._server_wakes = {url: asyncio.Event() for url in settings.triton_urls}
        self._route_wake = asyncio.Event()
        self._lease_wake = asyncio.Event()
        self._acted = dict.fromkeys(settings.triton_urls, 0)
        self._report = RouteReport()
        self._artifact_missing_since: dict[str, float] = {}
        self._server_reports: dict[str, ServerReport] = {}
        self._log: RouteLog
        self._state: Rollout
        self._delivery: Delivery
        self._leases: Leases
        self._guard: Guard

    async def start(self) -> None:
        """Take over the topics, read what they say, and connect to the rest."""
        settings = self._settings
        pipeline = load_pipeline(settings.pipeline)
        topics = Topics(deployed_name(pipeline.name, settings.namespace))
        store = ArtifactStore(settings.artifacts)
        self._delivery = Delivery(
            store,
            Verifier.read(settings.signing_public_key),
            Expected(topics.deployed, pipeline.features_fingerprint, pipeline.feature_names, pipeline.label.numeric),
            settings.triton_options,
            pipeline.releasing,
        )
        self._state = Rollout(
            topics.deployed,
            settings.triton_urls,
            keep_previous=settings.keep_previous,
            lease_grace_s=2 * LEASE_TTL_S,
            shadow_challengers=pipeline.releasing.shadow_challengers,
        )
        self._guard = Guard(
            settings.kafka_bootstrap,
            topics.predictions,
            await check_topics(settings.kafka_bootstrap, topics.deployed, only=(topics.predictions,)),
            features_fingerprint=pipeline.features_fingerprint,
            width=len(pipeline.feature_names),
            releasing=pipeline.releasing,
            shift_allowed=pipeline.releasing.shift_allowed(numeric=pipeline.label.numeric),
            watch_s=settings.guard_s,
            rails=Rails(min_rows=settings.guard_min_rows),
        )
        for url in settings.triton_urls:
            self._servers[url] = TritonServer(url, load_timeout_s=settings.load_timeout_s)
            self._server_reports[url] = ServerReport(url, topics.deployed)
            self._opened.push_async_callback(self._servers[url].close)
        redis = connect(settings.redis_url, max_connections=2, reply_timeout_s=2)
        self._opened.push_async_callback(redis.aclose)
        self._leases = Leases(redis, topics.deployed)
        if settings.mlflow_uri != "off":
            state = settings.state_dir.resolve()
            uri = settings.mlflow_uri or f"sqlite:///{state / 'mlflow.db'}"
            registry = MlflowRegistry(uri, state / "mlflow", store, topics.deployed, keep=settings.mlflow_keep)
            self._registrar = Registrar(registry, interval_s=settings.mlflow_interval_s)

        self._log = await self._opened.enter_async_context(open_route_log(settings.kafka_bootstrap, topics))
        history = await self._log.restore()
        if history.table is not None:
            self._log.resume(history.table.epoch)
            self._restore(history.table)
            self._register()
        await self._take(history)
        log.info(
            "log restored",
            models=len(history.models),
            epoch=history.table.epoch if history.table else 0,
            champion=history.table.champion.model.version if history.table else "",
        )
        self._models_health.ready()

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            ExceptionGroup: Kafka cannot go on, or another process has taken over.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_announcements(), name="announcements")
            tasks.create_task(self._write_routes(), name="routes")
            tasks.create_task(self._watch_leases(), name="leases")
            tasks.create_task(self._guard.run(self._hold_to_rails), name="guard")
            for url in self._servers:
                tasks.create_task(self._watch_server(url), name=f"watching {url}")
                tasks.create_task(self._keep_server(url), name=f"triton {url}")

    async def stop(self, deadline: Deadline) -> None:
        """Close what `start` opened. The models stay loaded: serving goes on without this process."""
        if self._registrar is not None:
            await asyncio.to_thread(self._registrar.close, min(REGISTRY_CLOSE_S, deadline.remaining() / 2))
        await self._opened.aclose()

    # What was announced.

    async def _read_announcements(self) -> None:
        heartbeat = self._health.heartbeat("announcements", LOOP_WITHIN_S)
        async for news in self._log.news():
            heartbeat.beat()
            await self._take(news)

    async def _take(self, news: News) -> None:
        for version in news.removed:
            self._state.forget(version)
        for model in news.models:
            await self._announce(model)
        for placed in news.commands:
            if self._state.give(placed.offset, placed.command):
                command = placed.command
                log.info(
                    "command read", command_id=command.command_id, by=command.by, does=command.WhichOneof("action")
                )
                self._wake_servers()
                self._route_wake.set()

    async def _announce(self, model: model_pb2.ModelVersion) -> None:
        announcement = self._state.announce(model)
        metrics.ANNOUNCED.labels(announcement.value).inc()
        if announcement is Announcement.REFRESH:
            self._report.announced(model.version)
            if self._state.held:
                log.info("refresh held: refreshes are frozen", version=model.version)
            self._wake_servers()
        elif announcement is Announcement.PROMOTION:
            log.info("version of another recipe: it waits for a command", version=model.version, recipe=model.recipe)
            self._wake_servers()
        elif announcement is Announcement.CONFLICT:
            await self._refuse(
                model,
                VersionRefusedError("conflict", f"version {model.version} was announced again with another model file"),
            )
        elif announcement is not Announcement.KNOWN:
            log.warning(
                "version ignored", version=model.version, learner_epoch=model.learner_epoch, reason=announcement.value
            )

    # What Triton has.

    async def _keep_server(self, url: str) -> None:
        server, wake = self._servers[url], self._server_wakes[url]
        while True:
            wake.clear()
            action = self._state.server_action(url, time.monotonic())
            if action is None:
                await _wait(wake, self._settings.triton_poll_s)
                continue
            if isinstance(action, Load):
                await self._load(url, server, action)
            else:
                await self._unload(url, server, action)
            self._acted[url] += 1

    async def _watch_server(self, url: str) -> None:
        # Beside the loading: a server that hangs in it is found to be away, and is not waited for.
        while True:
            began = time.monotonic()
            await self._look(url, self._servers[url])
            self._server_wakes[url].set()
            await asyncio.sleep(max(0.0, self._settings.triton_poll_s - (time.monotonic() - began)))

    async def _look(self, url: str, server: TritonServer) -> None:
        before = self._state.servers[url]
        was_reachable, was_polled, acted = before.ready is not None, before.polled, self._acted[url]
        try:
            counted = await server.statistics()
        except TritonError as error:
            if was_reachable or not was_polled:
                log.error("triton away", server=url, reason=str(error))
            self._state.observe(url, None)
        else:
            ready = frozenset(counted)
            if not was_reachable:
                log.info("triton reachable", server=url, models=len(ready))
            self._guard.looked(url, counted, self._state.table)
            self._hold_to_rails()
            if was_reachable and acted != self._acted[url]:
                # Something was loaded or taken away while the server was asked: the next look knows.
                return
            lost = before.passed - ready
            if lost:
                log.warning("triton lost models", server=url, models=sorted(lost))
            self._state.observe(url, ready)
        self._measure(url)
        self._route_wake.set()
        away = [one for one, known in self._state.servers.items() if known.ready is None]
        if len(away) < len(self._servers):
            self._triton_health.ready()
        else:
            self._triton_health.not_ready(
                f"degraded: no Triton answers at {', '.join(away)}; new versions wait, the champion stays"
            )

    async def _load(self, url: str, server: TritonServer, action: Load) -> None:
        model, name = action.model, self._state.triton_model(action.model.version)
        began = time.monotonic()
        try:
            parent = self._parent(url, action)
            await self._delivery.deliver(model, server, name, present=action.present, parent=parent)
        except VersionRefusedError as refusal:
            if action.routed:
                # It passed before, so this server is at fault: rather no answer from it than a wrong one.
                await self._unload(url, server, Unload(name))
                self._postpone(url, model, str(refusal))
            else:
                await self._refuse(model, refusal)
        except NotNowError as error:
            self._postpone(url, model, str(error))
            if error.waits_for_artifact and not action.routed:
                await self._wait_for_artifact(model, error)
        else:
            self._artifact_missing_since.pop(model.version, None)
            self._state.passed(url, model)
            log.info(
                "version loaded",
                version=model.version,
                server=url,
                again=action.routed,
                seconds=round(time.monotonic() - began, 3),
            )
        self._measure(url)
        self._route_wake.set()

    def _parent(self, url: str, action: Load) -> Parent | None:
        if action.replaces is None:
            return None
        name = self._state.triton_model(action.replaces.version)
        there = name in self._state.servers[url].passed
        return Parent(action.replaces, name, self._guard.rows) if there else None

    def _hold_to_rails(self) -> None:
        self._cross(self._guard.crossed(self._state.table))

    async def _hold_to_requests(self, leases: Sequence[GatewayLease]) -> None:
        """Look at the requests that gateways refused because the champion gave no score."""
        table = self._state.table
        for lease in (one for one in leases if one.unscored):
            there = [self._servers[url] for url, known in self._state.servers.items() if known.ready is not None]
            crossed = await self._guard.unscored(lease.unscored, table, there)
            if self._state.table is table:
                self._cross(crossed)

    def _cross(self, crossed: Crossed | None) -> None:
        table = self._state.table
        if table is not None and crossed is not None and self._state.cross(table.champion.model.version, crossed):
            metrics.CROSSED.labels(crossed.rail).inc()
            self._route_wake.set()

    async def _wait_for_artifact(self, model: model_pb2.ModelVersion, error: NotNowError) -> None:
        since = self._artifact_missing_since.setdefault(model.version, time.monotonic())
        if time.monotonic() - since >= self._settings.artifact_patience_s:
            del self._artifact_missing_since[model.version]
            await self._refuse(model, VersionRefusedError("artifact", f"version {model.version}: {error}"))

    async def _refuse(self, model: model_pb2.ModelVersion, refusal: VersionRefusedError) -> None:
        if refusal.check != "conflict" and not self._state.fail(model, str(refusal)):
            return
        self._report.failed(model.version)
        log.error("version failed", version=model.version, check=refusal.check, reason=str(refusal))
        metrics.FAILED.labels(refusal.check).inc()
        await self._log.raise_alert(
            model.version, model.model_time_us, refusal.value, refusal.threshold, f"{refusal.check}: {refusal}"
        )
        self._wake_servers()

    async def _unload(self, url: str, server: TritonServer, action: Unload) -> None:
        try:
            await server.unload(action.triton_model)
        except TritonError as error:
            # The next look at the server says what is left to do.
            log.warning("model not unloaded", model=action.triton_model, server=url, reason=str(error))
            self._state.observe(url, None)
        else:
            self._state.unloaded(url, action.triton_model)
            log.info("model unloaded", model=action.triton_model, server=url)
        self._measure(url)

    def _postpone(self, url: str, model: model_pb2.ModelVersion, reason: str) -> None:
        metrics.RETRIES.labels(url).inc()
        if self._state.postpone(url, model.version, time.monotonic()):
            log.error("version not loaded", version=model.version, server=url, reason=reason)

    # Which table the gateways get.

    async def _write_routes(self) -> None:
        heartbeat = self._health.heartbeat("routes", LOOP_WITHIN_S)
        while True:
            heartbeat.beat()
            self._route_wake.clear()
            table = self._state.next_table(time.time_ns() // 1000)
            if table is None:
                await _wait(self._route_wake, IDLE_S)
                continue
            before = self._state.table
            subject = table.frozen.alert_subject
            await self._log.publish(table, alerts_between(before, table, self._state.crossing(subject)))
            self._restore(table)
            self._report.changed(before, table, self._state.waiting)
            if before is None or table.epoch > before.epoch:
                self._register()
            self._lease_wake.set()
            self._wake_servers()

    def _restore(self, table: model_pb2.RouteTable) -> None:
        self._state.restore(table)
        metrics.EPOCH.set(table.epoch)
        metrics.FROZEN.set(table.HasField("frozen"))
        if table.adopted:
            metrics.ADOPTED.set(table.epoch)

    def _register(self) -> None:
        table = self._state.table
        if self._registrar is not None and table is not None:
            self._registrar.offer(table)

    async def _watch_leases(self) -> None:
        heartbeat = self._health.heartbeat("leases", LOOP_WITHIN_S)
        reachable = True
        while True:
            heartbeat.beat()
            self._lease_wake.clear()
            try:
                leases = await self._leases.read()
            except RedisUnavailable as error:
                if reachable:
                    log.error("leases not readable", reason=str(error))
                reachable = False
                self._redis_health.not_ready(f"degraded: {error}; models stay loaded until it answers")
                self._state.observe_leases(None, time.monotonic())
            else:
                reachable = True
                self._redis_health.ready()
                self._state.observe_leases(leases, time.monotonic())
                await self._hold_to_requests(leases)
            self._route_wake.set()
            table = self._state.table
            watching = reachable and table is not None and not table.adopted
            await _wait(self._lease_wake, self._settings.lease_poll_s if watching else IDLE_S)

    def _wake_servers(self) -> None:
        for wake in self._server_wakes.values():
            wake.set()

    def _measure(self, url: str) -> None:
        self._server_reports[url].measured(self._state.servers[url])


async def _wait(wake: asyncio.Event, seconds: float) -> None:
    """Wait until woken, for so long at the most."""
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return
