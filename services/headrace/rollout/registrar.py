"""Which versions are registered, and when: from a thread of its own, so that serving never waits for a registry.

Registered are candidates: versions that a route table names as champion, canary or shadow. A recipe that takes a route
is registered at once; its refreshes, which may come every second, are registered once in an interval, the newest then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from headrace.platform.logging import get_logger
from headrace.platform.route_reading import named
from headrace.rollout import metrics
from headrace.v1 import model_pb2

CHAMPION = "champion"
CHALLENGER = "challenger"
RETRY_S = 5.0

log = get_logger("registrar")

Key = tuple[str, str]


@dataclass(frozen=True)
class Candidate:
    """A version to register.

    Attributes:
        model: as announced.
        triton_model: name of the Triton model that serves it.
        epoch: of the route table that names it.
        route: "champion", "canary" or "shadow".
        alias: what it is called in the registry: "champion", "challenger", or empty for one challenger of several.
    """

    model: model_pb2.ModelVersion
    triton_model: str
    epoch: int
    route: str = CHAMPION
    alias: str = CHAMPION

    @property
    def key(self) -> Key:
        """Candidates of one key follow each other as refreshes do."""
        return self.route, self.model.recipe_fingerprint


class Registry(Protocol):
    """Where candidates are registered."""

    def register(self, candidate: Candidate) -> None:
        """Register one; it is no error when it is registered already. May take seconds and raise anything."""

    def retain(self, in_use: Collection[str], aliases: Collection[str]) -> None:
        """Remove old entries but for those in use, and aliases but for those named. May raise anything."""


def candidates(table: model_pb2.RouteTable) -> list[Candidate]:
    """The candidates that a route table names, the champion first. The canary is the challenger, else the first
    shadow is.
    """
    found: list[Candidate] = []
    for route, entry in named(table).values():
        if route == "previous":
            continue
        taken = {one.alias for one in found}
        alias = CHAMPION if route == CHAMPION else "" if CHALLENGER in taken else CHALLENGER
        found.append(Candidate(entry.model, entry.triton_model, table.epoch, route, alias))
    return found


class Registrar:
    """The thread that registers candidates.

    It holds one candidate of a key at the most: a newer one takes the place of one that still waits. One that could not
    be registered is tried again after the interval, 5 s at the least, unless a newer one came.

    Args:
        registry: where to.
        interval_s: fewest seconds between two registrations of a key.
        clock: monotonic seconds.
    """

    def __init__(self, registry: Registry, *, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._interval_s = interval_s
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: dict[Key, Candidate] = {}
        self._taken: dict[Key, str] = {}
        self._due: dict[Key, float] = {}
        self._in_use: frozenset[str] = frozenset()
        self._aliases: frozenset[str] = frozenset()
        self._closed = False
        # A daemon: a database that hangs must not keep the process from ending; `close` waits for as long as it may.
        self._thread = threading.Thread(target=self._run, name="registrar", daemon=True)
        self._thread.start()

    def offer(self, table: model_pb2.RouteTable) -> None:
        """Hand a route table over; never waits for the registry."""
        found = candidates(table)
        with self._changed:
            self._in_use = frozenset(named(table))
            self._aliases = frozenset(one.alias for one in found if one.alias)
            routed = {one.key for one in found}
            # What lost its route while it waited is no candidate any more.
            for key in [key for key in self._waiting if key not in routed]:
                del self._waiting[key]
                metrics.REGISTRY_SKIPPED.inc()
            for candidate in found:
                if self._taken.get(candidate.key) == candidate.model.version:
                    continue
                if candidate.key in self._waiting:
                    metrics.REGISTRY_SKIPPED.inc()
                self._waiting[candidate.key] = candidate
                self._taken[candidate.key] = candidate.model.version
            self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Finish the registration under way, leave out what waits, and end the thread, within a time."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (candidate := self._next()) is not None:
            try:
                self._registry.register(candidate)
                metrics.REGISTERED.inc()
                log.info("version registered", version=candidate.model.version, alias=candidate.alias)
                with self._changed:
                    in_use, aliases = self._in_use, self._aliases
                self._registry.retain(in_use, aliases)
            except Exception as error:  # noqa: BLE001
                # Whatever goes wrong in the registry, and it may be anything, is the registry's alone.
                metrics.REGISTRY_FAILURES.inc()
                log.error("registration failed", version=candidate.model.version, reason=str(error))
                with self._changed:
                    self._due[candidate.key] = self._clock() + max(self._interval_s, RETRY_S)
                    if self._taken.get(candidate.key) == candidate.model.version:
                        self._waiting.setdefault(candidate.key, candidate)

    def _next(self) -> Candidate | None:
        """The next candidate to register, once one is due; None when the thread is to end."""
        with self._changed:
            while not self._closed:
                now = self._clock()
                key = min(self._waiting, key=lambda one: self._due.get(one, now), default=None)
                wait = None if key is None else self._due.get(key, now) - now
                if key is not None and wait is not None and wait <= 0:
                    self._due[key] = now + self._interval_s
                    return self._waiting.pop(key)
                self._changed.wait(wait)
        return None
