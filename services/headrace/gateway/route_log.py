"""Follows the route table in Kafka."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.errors import KafkaError
from google.protobuf.message import DecodeError

from headrace.gateway.in_process_models import InProcessModels, ModelUnusableError
from headrace.gateway.metrics import CANARY_SHARE, LEFT_OUT, ROUTE_EPOCH, SHADOWS
from headrace.gateway.routing import Routing, ServedVersion
from headrace.platform import kafka
from headrace.platform.health import Component
from headrace.platform.kafka import KafkaUnavailable, TopicPartition
from headrace.platform.logging import get_logger
from headrace.platform.topics import Topics
from headrace.v1.model_pb2 import RouteTable
from headrace.v1.prediction_pb2 import Route

POLL_MS = 500
RETRY_S = 0.5
LOAD_TIMEOUT_S = 2.0


class RouteLog:
    """Takes each route table into use, the newest first.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        routing: told of the tables.
        models: have the champion and the canary ready for when Triton is away.
        component: ready when there is a table.
    """

    def __init__(
        self, bootstrap: str, topics: Topics, routing: Routing, models: InProcessModels, component: Component
    ) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._routing = routing
        self._models = models
        self._component = component
        self._log = get_logger("route_log")
        component.starting("no route table yet")

    async def run(self) -> None:
        """Follow the table until cancelled. While Kafka is away, the last table stays in use.

        Raises:
            KafkaFault: Kafka refuses what is asked.
        """
        partition = TopicPartition(self._topics.routes, 0)
        while True:
            try:
                async with kafka.consumer(self._bootstrap, partitions=[partition], fetch_max_wait_ms=200) as reader:
                    await self._follow(reader)
            except KafkaUnavailable as error:
                self._log.warning("the route table cannot be followed", reason=str(error))
                await asyncio.sleep(RETRY_S)

    async def _follow(self, reader: Any) -> None:
        while True:
            try:
                found = await reader.getmany(timeout_ms=POLL_MS)
            except (KafkaError, OSError) as error:
                raise kafka.translate(error, f"{self._topics.routes} cannot be read") from error
            tables = [self._parse(record.value) for records in found.values() for record in records if record.value]
            newest = max((table for table in tables if table is not None), key=lambda table: table.epoch, default=None)
            if newest is not None and newest.epoch > self._routing.epoch and newest.HasField("champion"):
                await self._take(newest)

    async def _take(self, table: RouteTable) -> None:
        # First, so that there is never a moment in which one that answers could not run here.
        answering = [table.champion, *([table.canary] if table.HasField("canary") else [])]
        await asyncio.gather(*(self._load(ServedVersion.of(one)) for one in answering))
        if not self._routing.adopt(table):
            return
        ROUTE_EPOCH.set(table.epoch)
        canary, shadows = self._routing.canary(), self._routing.shadows()
        CANARY_SHARE.set(self._routing.canary_share)
        SHADOWS.set(len(shadows))
        self._component.ready()
        self._log.info(
            "route table in use",
            epoch=table.epoch,
            champion=table.champion.model.version,
            canary=canary.version.version if canary else None,
            canary_share=self._routing.canary_share,
            shadows=[one.version.version for one in shadows],
        )
        for choice in self._routing.left_out:
            route = Route.Name(choice.route).removeprefix("ROUTE_").lower()
            LEFT_OUT.labels(route).inc()
            self._log.error(
                "a version of the route table takes other features than this gateway computes; it gets no rows",
                version=choice.version.version,
                route=route,
                takes=f"{choice.version.features_fingerprint:016x}",
            )

    async def _load(self, version: ServedVersion) -> None:
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                await self._models.load(version)
        except (ModelUnusableError, TimeoutError) as error:
            self._log.warning("a version cannot run in this process", version=version.version, reason=str(error))

    def _parse(self, value: bytes) -> RouteTable | None:
        try:
            return RouteTable.FromString(value)
        except DecodeError as error:
            self._log.error("a route table cannot be read", reason=str(error))
            return None
