"""What to do next, from what was announced, what Triton has loaded and what the gateways use. Pure.

The rules:

- Versions are ordered by (learner epoch, version). A version of a lower learner epoch than one already seen comes from
  a learner that has been replaced: it is ignored.
- The newest version that has not failed is the candidate; versions between it and the champion are skipped. A candidate
  whose push has begun is finished first, so that a fast learner cannot keep every version from traffic.
- A version is routed when every reachable Triton, and at least one, has it loaded and gave the right scores.
- The table is written again as adopted when every live lease, and at least one, names its epoch.
- A Triton model is unloaded when the table does not name it, no live lease names it, and every live lease has passed to
  the table's epoch.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headrace.rollout.checks import VERSION
from headrace.v1 import model_pb2

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


class Lease(Protocol):
    """What one live gateway process uses."""

    @property
    def epoch(self) -> int:
        """Epoch of the route table in use."""

    @property
    def versions(self) -> frozenset[str]:
        """Versions that requests may still be sent to."""


class Announcement(enum.Enum):
    """What an announced version is to this pipeline."""

    CANDIDATE = "candidate"
    KNOWN = "known"
    ZOMBIE = "zombie"
    CONFLICT = "conflict"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Load:
    """Bring a version onto a server and check its scores there.

    Attributes:
        model: the version.
        present: the server says that it is loaded, so the check alone may do.
        routed: the route table names it; what fails is then the server, not the version.
    """

    model: model_pb2.ModelVersion
    present: bool
    routed: bool


@dataclass(frozen=True)
class Unload:
    """Take a Triton model off a server."""

    triton_model: str


@dataclass
class Server:
    """What is known of one Triton server.

    Attributes:
        ready: Triton models that it serves; None while it does not answer.
        polled: whether it was asked at all since the start.
        passed: Triton models that gave the right scores since they were loaded.
        pauses: Triton model to (earliest next attempt in seconds of the caller's clock, length of the pause).
    """

    ready: frozenset[str] | None = None
    polled: bool = False
    passed: set[str] = field(default_factory=set)
    pauses: dict[str, tuple[float, float]] = field(default_factory=dict)


Order = tuple[int, str]


def order_of(model: model_pb2.ModelVersion) -> Order:
    """Sort key of versions: (learner epoch, version)."""
    return model.learner_epoch, model.version


class Rollout:
    """The state of one deployed pipeline's rollout.

    Args:
        pipeline: deployed pipeline name.
        urls: Triton servers.
        keep_previous: how many earlier champions stay loaded.
        lease_grace_s: without any live lease, models stay loaded for this many seconds: leases come back within it
            after Redis lost them.
    """

    def __init__(self, pipeline: str, urls: Sequence[str], *, keep_previous: int, lease_grace_s: float) -> None:
        self.pipeline = pipeline
        self.table: model_pb2.RouteTable | None = None
        self.servers = {url: Server() for url in urls}
        self._keep_previous = keep_previous
        self._lease_grace_s = lease_grace_s
        self._learner_epoch = 0
        self._waiting: dict[str, model_pb2.ModelVersion] = {}
        self._failed: dict[str, bytes] = {}
        self._retired: set[str] = set()
        self._pushing: str | None = None
        self._leases: Sequence[Lease] | None = None
        self._without_lease_since: float | None = None

    def restore(self, table: model_pb2.RouteTable) -> None:
        """Take over a table that is on the log: at the start the last one, later one's own."""
        self._retired |= {routed.model.version for routed in self._routed()}
        self.table = table
        for routed in self._routed():
            self._learner_epoch = max(self._learner_epoch, routed.model.learner_epoch)
        champion = order_of(table.champion.model)
        self._waiting = {v: m for v, m in self._waiting.items() if order_of(m) > champion}
        if self._pushing not in self._waiting:
            self._pushing = None

    def announce(self, model: model_pb2.ModelVersion) -> Announcement:
        """Take note of a version from the log, in log order."""
        if model.learner_epoch < self._learner_epoch:
            return Announcement.ZOMBIE
        for routed in self._routed():
            if routed.model.version == model.version:
                same = routed.model.onnx.sha256 == model.onnx.sha256
                return Announcement.KNOWN if same else Announcement.CONFLICT
        if model.learner_epoch > self._learner_epoch:
            # Whatever an older learner announced and nobody routed yet is not continued by the new one.
            self._learner_epoch = model.learner_epoch
            self._waiting = {v: m for v, m in self._waiting.items() if v == self._pushing}
        if self._failed.get(model.version) == model.onnx.sha256:
            return Announcement.KNOWN
        if model.kind != model_pb2.RELEASE_KIND_REFRESH:
            return Announcement.UNSUPPORTED
        if self.table is not None and order_of(model) <= order_of(self.table.champion.model):
            return Announcement.KNOWN
        self._failed.pop(model.version, None)
        waiting = self._waiting.get(model.version)
        if waiting is None or waiting.onnx.sha256 != model.onnx.sha256:
            # What passed under this name, if anything did, was another file.
            for server in self.servers.values():
                server.passed.discard(self.triton_model(model.version))
        self._waiting[model.version] = model
        return Announcement.CANDIDATE

    def fail(self, model: model_pb2.ModelVersion) -> bool:
        """A version failed its checks: it is never routed. False when that was known."""
        known = self._failed.get(model.version) == model.onnx.sha256
        self._failed[model.version] = model.onnx.sha256
        waiting = self._waiting.get(model.version)
        if waiting is not None and waiting.onnx.sha256 == model.onnx.sha256:
            del self._waiting[model.version]
        if self._pushing == model.version:
            self._pushing = None
        return not known

    @property
    def candidate(self) -> model_pb2.ModelVersion | None:
        """The version to bring into traffic next."""
        if self._pushing is not None:
            return self._waiting[self._pushing]
        return max(self._waiting.values(), key=order_of, default=None)

    @property
    def waiting(self) -> frozenset[str]:
        """Versions that may still be routed."""
        return frozenset(self._waiting)

    def triton_model(self, version: str) -> str:
        """Name of the Triton model of a version."""
        return f"{self.pipeline}-{version}"

    # What a server has, and what to do about it.

    def observe(self, url: str, ready: frozenset[str] | None) -> None:
        """The Triton models that a server serves now; None when it does not answer."""
        server = self.servers[url]
        server.polled = True
        server.ready = ready
        # A model that vanished was lost with its server or taken away: what comes back must pass again.
        server.passed &= ready or frozenset()

    def observe_leases(self, leases: Sequence[Lease] | None, now: float) -> None:
        """The live leases; None while they cannot be read. `now` in seconds of a monotonic clock."""
        self._leases = leases
        if leases is None or leases:
            self._without_lease_since = None
        elif self._without_lease_since is None:
            self._without_lease_since = now

    def server_action(self, url: str, now: float) -> Load | Unload | None:
        """What to do next on a server: its champion first, then the candidate, then the rest.

        The caller does it and reports by `passed`, `postpone`, `fail` or `observe`.
        """
        server = self.servers[url]
        if server.ready is None:
            return None
        wanted = [(routed.model, True) for routed in self._routed()]
        candidate = self.candidate
        if candidate is not None:
            wanted.insert(1, (candidate, False))
        for model, routed in wanted:
            name = self.triton_model(model.version)
            if name in server.passed or server.pauses.get(name, (now, 0))[0] > now:
                continue
            if not routed:
                self._pushing = model.version
            return Load(model, present=routed and name in server.ready, routed=routed)
        return next((Unload(name) for name in sorted(server.ready) if self._may_unload(name, now)), None)

    def passed(self, url: str, model: model_pb2.ModelVersion) -> None:
        """A version is loaded on a server and gave the right scores."""
        server, name = self.servers[url], self.triton_model(model.version)
        waiting = self._waiting.get(model.version)
        if waiting is not None and waiting.onnx.sha256 != model.onnx.sha256:
            # Announced again with another file while this one was pushed.
            return
        if server.ready is not None:
            server.ready |= {name}
            server.passed.add(name)
        server.pauses.pop(name, None)

    def postpone(self, url: str, version: str, now: float) -> bool:
        """A version could not be brought onto a server for now. True on the first failure of a row."""
        server, name = self.servers[url], self.triton_model(version)
        _, pause = server.pauses.get(name, (0.0, 0.0))
        longer = min(max(FIRST_PAUSE_S, pause * 2), LONGEST_PAUSE_S)
        server.pauses[name] = (now + longer, longer)
        if self._pushing == version:
            self._pushing = None
        return pause == 0

    def unloaded(self, url: str, triton_model: str) -> None:
        """A Triton model was taken off a server."""
        server = self.servers[url]
        if server.ready is not None:
            server.ready -= {triton_model}
        server.passed.discard(triton_model)
        server.pauses.pop(triton_model, None)

    # What to write to the log.

    def next_table(self, now_us: int) -> model_pb2.RouteTable | None:
        """The table to write now, or None when the present one stands.

        Args:
            now_us: wall clock in microseconds since 1970-01-01 UTC.
        """
        model = self._ready_to_route()
        if model is not None:
            return self._table_with(model, now_us)
        if self.table is None or self.table.adopted or not self._leases:
            return None
        if any(lease.epoch < self.table.epoch for lease in self._leases):
            return None
        adopted = model_pb2.RouteTable()
        adopted.CopyFrom(self.table)
        adopted.adopted = True
        return adopted

    def _ready_to_route(self) -> model_pb2.ModelVersion | None:
        if not all(server.polled for server in self.servers.values()):
            return None
        reachable = [server for server in self.servers.values() if server.ready is not None]
        if not reachable:
            return None
        return max(
            (
                model
                for version, model in self._waiting.items()
                if all(self.triton_model(version) in server.passed for server in reachable)
            ),
            key=order_of,
            default=None,
        )

    def _table_with(self, model: model_pb2.ModelVersion, now_us: int) -> model_pb2.RouteTable:
        table = model_pb2.RouteTable(pipeline=self.pipeline, epoch=1, updated_time_us=now_us)
        table.champion.model.CopyFrom(model)
        table.champion.triton_model = self.triton_model(model.version)
        if self.table is not None:
            table.epoch = self.table.epoch + 1
            if self.table.HasField("canary"):
                table.canary.CopyFrom(self.table.canary)
            table.shadows.extend(self.table.shadows)
            earlier = [self.table.champion, *self.table.previous]
            table.previous.extend([r for r in earlier if r.model.version != model.version][: self._keep_previous])
        return table

    def _routed(self) -> Iterator[model_pb2.RoutedVersion]:
        if self.table is None:
            return
        yield self.table.champion
        if self.table.HasField("canary"):
            yield self.table.canary
        yield from self.table.shadows
        yield from self.table.previous

    def _may_unload(self, name: str, now: float) -> bool:
        prefix, version = f"{self.pipeline}-", name.removeprefix(f"{self.pipeline}-")
        if not name.startswith(prefix) or not VERSION.fullmatch(version) or version in self._waiting:
            # Not of this pipeline: the model of a pipeline `<pipeline>-x` has another hyphen in its name.
            return False
        if any(routed.model.version == version for routed in self._routed()):
            return False
        if version in self._failed:
            return True
        if self.table is None or self._leases is None:
            return False
        if version > self.table.champion.model.version and version not in self._retired:
            # A version that is newer than what this process knows may belong to the process that replaced it.
            return False
        if not self._leases:
            since = self._without_lease_since
            return since is not None and now - since >= self._lease_grace_s
        return all(lease.epoch >= self.table.epoch and version not in lease.versions for lease in self._leases)
