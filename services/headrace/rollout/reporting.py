"""What the rollout says of its work, in its log and its metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from headrace.platform.logging import get_logger
from headrace.rollout import metrics
from headrace.rollout.triton_contents import Server
from headrace.v1 import model_pb2, route_pb2

log = get_logger("rollout")


class RouteReport:
    """Says what changed from one route table to the next, and how long it took.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._announced_at: dict[str, float] = {}
        self._routed_at = clock()

    def announced(self, version: str) -> None:
        """A version was read that is to take traffic."""
        self._announced_at[version] = self._clock()

    def failed(self, version: str) -> None:
        """It never will."""
        self._announced_at.pop(version, None)

    def changed(
        self, before: model_pb2.RouteTable | None, table: model_pb2.RouteTable, waiting: Collection[str]
    ) -> None:
        """Report a table that was written.

        Args:
            before: the one until now.
            table: the one that was written.
            waiting: versions that may still come into traffic.
        """
        now, champion = self._clock(), table.champion.model.version
        known = {change.SerializeToString(deterministic=True) for change in before.changes} if before else set()
        for change in table.changes:
            if change.SerializeToString(deterministic=True) in known:
                continue
            kind = route_pb2.RouteChangeKind.Name(change.kind).removeprefix("ROUTE_CHANGE_KIND_").lower()
            metrics.CHANGES.labels(kind).inc()
            seconds = now - self._announced_at.pop(change.version, now)
            say = log.warning if change.refused or kind in {"guard_rail", "freeze"} else log.info
            say(
                "command refused" if change.refused else "routes changed",
                change=kind,
                epoch=table.epoch,
                version=change.version,
                replaced=change.replaced,
                by=change.by,
                reason=change.refused or change.detail,
                command_id=change.command_id,
                seconds=round(seconds, 3),
            )
            if kind == "refresh" and change.version == champion:
                metrics.TO_ROUTE.observe(seconds)
        self._announced_at = {version: at for version, at in self._announced_at.items() if version in waiting}
        if before is None or table.epoch > before.epoch:
            self._routed_at = now
        elif table.adopted and not before.adopted:
            metrics.TO_ADOPTED.observe(now - self._routed_at)
            log.info("route adopted", epoch=table.epoch, seconds=round(now - self._routed_at, 3))


class ServerReport:
    """Keeps the metrics of one Triton server.

    Args:
        url: of the server.
        pipeline: deployed pipeline name.
    """

    def __init__(self, url: str, pipeline: str) -> None:
        self._url = url
        self._prefix = f"{pipeline}-"
        self._held: set[str] = set()

    def measured(self, server: Server) -> None:
        """Report what is known of the server now."""
        url = self._url
        metrics.REACHABLE.labels(url).set(server.ready is not None)
        metrics.LOADED.labels(url).set(len(server.passed))
        metrics.LAGGING.labels(url).set(server.ready is not None and server.lagging)
        for name in server.passed - self._held:
            metrics.HOLDS.labels(url, name.removeprefix(self._prefix)).set(1)
        for name in self._held - server.passed:
            metrics.HOLDS.remove(url, name.removeprefix(self._prefix))
        self._held = set(server.passed)
