"""Watches the champion while it answers: reads `predictions`, hears what Triton counts, says when a rail is crossed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from headrace.pipeline.releasing import Releasing
from headrace.platform.kafka import KafkaUnavailable, TopicPartition, consumer
from headrace.platform.logging import get_logger
from headrace.rollout.guard_rails import Crossed
from headrace.rollout.live_scores import Counted, LiveScores, Rails
from headrace.rollout.triton import TritonError, TritonServer
from headrace.v1.model_pb2 import RouteTable
from headrace.v1.prediction_pb2 import ROLE_ANSWER, Prediction

POLL_MS = 250
MOST_RECORDS = 1_000
MOST_BEHIND = 4_000
RETRY_S = 1.0

log = get_logger("guard")


class Guard:
    """Watches the champion.

    Args:
        bootstrap: Kafka brokers.
        topic: `predictions` of the deployed pipeline.
        partitions: how many it has.
        features_fingerprint: of the pipeline: rows of others are left out.
        width: number of features.
        releasing: how far scores may move.
        shift_allowed: the bound of it that is in force.
        watch_s: seconds after it came that a champion is watched; 0 watches none.
        rails: what else is allowed.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        partitions: int,
        *,
        features_fingerprint: int,
        width: int,
        releasing: Releasing,
        shift_allowed: float,
        watch_s: float,
        rails: Rails,
    ) -> None:
        self._bootstrap = bootstrap
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]
        self._fingerprint = features_fingerprint
        self._releasing = releasing
        self._shift_allowed = shift_allowed
        self._watch_s = watch_s
        self._live = LiveScores(width, rails)
        self._width = width
        self._asked = ("", "")

    @property
    def rows(self) -> NDArray[np.float32]:
        """Features of the newest answers, rows x features; without rows while nothing is watched."""
        return self._live.rows

    def looked(self, server: str, counted: Mapping[str, Counted], table: RouteTable | None) -> None:
        """Take note of what a server has counted.

        Args:
            server: its URL.
            counted: by Triton model.
            table: the routes.
        """
        if table is not None:
            before = table.previous[0].triton_model if table.previous else ""
            self._live.looked(server, counted, table.champion.triton_model, before)

    def crossed(self, table: RouteTable | None) -> Crossed | None:
        """The guard rail that the champion crosses, if it is watched and does."""
        if table is None or not self._is_watched(table):
            return None
        champion, parent = table.champion, table.previous[0] if table.previous else None
        learned = parent is not None and not parent.model.untrained
        judged = learned and parent is not None and parent.model.learned_count >= self._releasing.min_learned
        # Scores of another recipe may well be others: its promotion was somebody's decision.
        same = parent is not None and parent.model.recipe_fingerprint == champion.model.recipe_fingerprint
        return self._live.crossed(
            champion.model.version,
            champion.triton_model,
            parent.model.version if parent is not None else "",
            self._shift_allowed if judged and same else None,
        )

    async def unscored(
        self, rows: Mapping[str, Sequence[Sequence[float]]], table: RouteTable | None, servers: Iterable[TritonServer]
    ) -> Crossed | None:
        """The guard rail that the champion crosses by requests that it gave no finite score for.

        Such a request is refused, so it has no prediction. Only what the version before scores counts: a row that no
        version can score is not the champion's fault.

        Args:
            rows: features of such requests, by version, as the gateways tell.
            table: the routes.
            servers: to ask both versions again.
        """
        if table is None or not table.previous or not self._is_watched(table):
            return None
        champion, parent = table.champion, table.previous[0]
        given = [row for row in rows.get(champion.model.version, ()) if len(row) == self._width]
        asked = champion.model.version, str(given)
        if not given or asked == self._asked:
            return None
        features = np.asarray(given, np.float32)
        for server in servers:
            try:
                scores = await server.score(champion.triton_model, features)
                before = await server.score(parent.triton_model, features)
            except TritonError as error:
                log.warning("requests without a score are not looked at", server=server.url, reason=str(error))
                continue
            self._asked = asked
            wrong = int((~np.isfinite(scores) & np.isfinite(before)).sum())
            version = champion.model.version
            if not wrong:
                log.warning("requests without a score", version=version, rows=len(given), before=parent.model.version)
                return None
            detail = (
                f"version {version} gives no finite score for {wrong} recent rows that {parent.model.version} scores"
            )
            return Crossed("finite_scores", detail, wrong)
        return None

    def _is_watched(self, table: RouteTable) -> bool:
        return time.time() - table.champion.since_time_us / 1e6 <= self._watch_s

    async def run(self, look: Callable[[], None]) -> None:
        """Read answers until cancelled.

        Args:
            look: called when there are new ones.

        Raises:
            KafkaFault: Kafka refuses what is asked.
        """
        if not self._watch_s:
            await asyncio.Event().wait()
        while True:
            try:
                await self._read(look)
            except KafkaUnavailable as error:
                log.warning("answers are not watched", reason=str(error))
                await asyncio.sleep(RETRY_S)

    async def _read(self, look: Callable[[], None]) -> None:
        async with consumer(self._bootstrap, partitions=self._partitions, offset_reset="latest") as reader:
            while True:
                found = await reader.getmany(timeout_ms=POLL_MS, max_records=MOST_RECORDS)
                for partition, records in found.items():
                    for record in records:
                        self._take(record)
                    # A sample is enough: what cannot be kept up with is left out.
                    end = reader.highwater(partition)
                    if end is not None and end - await reader.position(partition) > MOST_BEHIND:
                        await reader.seek_to_end(partition)
                if found:
                    look()

    def _take(self, record: Any) -> None:
        try:
            prediction = Prediction.FromString(record.value or b"")
        except DecodeError:
            return
        if prediction.role == ROLE_ANSWER and prediction.features_fingerprint == self._fingerprint:
            self._live.answered(prediction.model_version, prediction.score, prediction.features)
