"""What to do next, from what was announced, what Triton has loaded and what the gateways use. Pure.

The rules:

- Versions are ordered by (learner epoch, version). A version of a lower learner epoch than one already seen comes from
  a learner that has been replaced: it is ignored.
- A newer version of the recipe of a routed version is a refresh: it takes that version's place by itself, unless
  refreshes are frozen or it was rolled back. A version of another recipe is a promotion: it takes traffic by command
  only, and is scored as a shadow by itself where the pipeline declares it so.
- The newest refresh that has not failed is the candidate; versions between are skipped. A candidate whose push has
  begun is finished first, so that a fast learner cannot keep every version from traffic.
- A version is routed when every reachable Triton, and at least one, has it loaded and gave the right scores. One that
  answers, but failed to take a version several times in a row, is not waited for.
- Commands are carried out one at a time, in the order of `control`; a guard rail that is crossed goes before them.
- The table is written again as adopted when every live lease, and at least one, names its epoch.
- A Triton model is unloaded when the table does not name it, no live lease names it, and every live lease has passed to
  the table's epoch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from headrace.rollout import route_tables
from headrace.rollout.checks import VERSION
from headrace.rollout.commands import CommandRefusedError, Placed, Plan, Planner, order_of
from headrace.rollout.guard_rails import Crossed
from headrace.rollout.live_leases import Lease, LiveLeases
from headrace.rollout.releases import Releases
from headrace.rollout.route_tables import ROLLOUT, Author, routed
from headrace.rollout.server_actions import Load, Unload
from headrace.rollout.triton_contents import Server, TritonContents
from headrace.v1 import model_pb2, route_pb2


class Announcement(enum.Enum):
    """What an announced version is to this pipeline."""

    REFRESH = "refresh"
    KNOWN = "known"
    ZOMBIE = "zombie"
    CONFLICT = "conflict"
    PROMOTION = "promotion"


_Wanted: TypeAlias = tuple[model_pb2.ModelVersion, bool, model_pb2.ModelVersion | None]
"""A version, whether the table names it, and the version whose place it takes as a refresh."""


class Rollout:
    """The state of one deployed pipeline's rollout.

    Args:
        pipeline: deployed pipeline name.
        urls: Triton servers.
        keep_previous: how many earlier champions stay loaded.
        lease_grace_s: without any live lease, models stay loaded for this many seconds: leases come back within it
            after Redis lost them.
        shadow_challengers: whether the pipeline declares that its challengers are scored as shadows.
    """

    def __init__(
        self,
        pipeline: str,
        urls: Sequence[str],
        *,
        keep_previous: int,
        lease_grace_s: float,
        shadow_challengers: bool = False,
    ) -> None:
        self.pipeline = pipeline
        self.table: model_pb2.RouteTable | None = None
        self._releases = Releases(shadow_challengers=shadow_challengers)
        self._triton = TritonContents(urls)
        self._keep_previous = keep_previous
        self._retired: set[str] = set()
        self._commands: list[Placed] = []
        self._meant: tuple[int, dict[str, model_pb2.ModelVersion]] = (-1, {})
        self._crossed: dict[str, Crossed] = {}
        self._leases = LiveLeases(lease_grace_s)

    @property
    def servers(self) -> Mapping[str, Server]:
        """What is known of each Triton server, by URL."""
        return self._triton.servers

    # What the log says.

    def restore(self, table: model_pb2.RouteTable) -> None:
        """Take over a table that is on the log: at the start the last one, later one's own."""
        self._retired |= {one.model.version for one in routed(self.table)}
        self.table = table
        there = {one.model.version for one in routed(table)}
        for one in routed(table):
            self._releases.learner_epoch = max(self._releases.learner_epoch, one.model.learner_epoch)
        self._releases.push_ended(there)
        self._commands = [one for one in self._commands if one.offset >= table.next_command]
        self._crossed = {version: one for version, one in self._crossed.items() if version in there}

    def announce(self, model: model_pb2.ModelVersion) -> Announcement:
        """Take note of a version from the log, in log order."""
        releases = self._releases
        if model.learner_epoch < releases.read_epoch:
            return Announcement.ZOMBIE
        releases.read_epoch = model.learner_epoch
        there = next((one.model for one in routed(self.table) if one.model.version == model.version), None)
        if model.learner_epoch < releases.learner_epoch:
            # Read again after a restart: an earlier leader announced it, and a command may still name it.
            if there is None or there.onnx.sha256 == model.onnx.sha256:
                releases.add(model)
            return Announcement.KNOWN
        if there is not None and there.onnx.sha256 != model.onnx.sha256:
            return Announcement.CONFLICT
        releases.learner_epoch = model.learner_epoch
        if there is None and releases.has_failed(model):
            return Announcement.KNOWN
        if not releases.add(model) and there is None:
            self._triton.replaced(self.triton_model(model.version))
        if there is not None:
            return Announcement.KNOWN
        if self.table is None:
            first = model.kind == model_pb2.RELEASE_KIND_REFRESH
            return Announcement.REFRESH if first else Announcement.PROMOTION
        stages = [one.model for one in self._followed() if one.model.recipe_fingerprint == model.recipe_fingerprint]
        if any(order_of(model) > order_of(one) for one in stages):
            return Announcement.REFRESH
        return Announcement.KNOWN if stages else Announcement.PROMOTION

    def forget(self, version: str) -> None:
        """A version left `models` by retention: it can come into traffic no more, unless it is there."""
        self._releases.forget(version)

    def give(self, offset: int, command: route_pb2.RouteCommand) -> bool:
        """Take note of a command from `control`, in log order. False when it was handled before."""
        if self.table is not None and (
            offset < self.table.next_command
            or (command.command_id and any(one.command_id == command.command_id for one in self.table.changes))
        ):
            return False
        if any(one.command.command_id == command.command_id for one in self._commands if command.command_id):
            return False
        self._commands.append(Placed(offset, command))
        return True

    def fail(self, model: model_pb2.ModelVersion, reason: str = "") -> bool:
        """A version failed its checks: it is never routed. False when that was known."""
        return self._releases.fail(model, reason)

    def cross(self, version: str, crossed: Crossed) -> bool:
        """The champion of that name crossed a guard rail. False when it is the champion no more, or it was known."""
        if self.table is None or self.table.champion.model.version != version or version in self._crossed:
            return False
        self._crossed[version] = crossed
        return True

    def crossing(self, version: str) -> Crossed | None:
        """The guard rail that a version crossed, if it did."""
        return self._crossed.get(version)

    # What is to be brought into traffic.

    @property
    def candidate(self) -> model_pb2.ModelVersion | None:
        """The version that takes the champion's place next."""
        if self.table is None:
            return self._releases.first()
        return self._releases.refresh_of(self.table.champion.model, self.table)

    @property
    def waiting(self) -> frozenset[str]:
        """Versions that may still come into traffic."""
        return self._releases.waiting(self.table)

    @property
    def held(self) -> bool:
        """Whether refreshes are frozen."""
        return self.table is not None and self.table.HasField("frozen")

    def triton_model(self, version: str) -> str:
        """Name of the Triton model of a version."""
        return f"{self.pipeline}-{version}"

    def _followed(self) -> list[model_pb2.RoutedVersion]:
        """The routes whose recipes are refreshed."""
        if self.table is None:
            return []
        canary = [self.table.canary] if self.table.HasField("canary") else []
        return [self.table.champion, *canary, *self.table.shadows]

    def _next_plan(self) -> Plan | None:
        """What the first command comes to. The name of a recipe goes on meaning the version that it meant at first.

        Raises:
            CommandRefusedError: it cannot be carried out.
        """
        if self.table is None or not self._commands:
            return None
        placed = self._commands[0]
        if self._meant[0] != placed.offset:
            self._meant = placed.offset, {}
        meant, failed = self._meant[1], self._releases.failed
        for one in meant.values():
            if self._releases.has_failed(one):
                raise CommandRefusedError(f"version {one.version} failed: {failed[one.version].reason}")
        planner = Planner(self.table, self._releases.known, frozenset(failed), self._keep_previous, meant)
        return planner.plan(placed.command)

    # What a server has, and what to do about it.

    def observe(self, url: str, ready: frozenset[str] | None) -> None:
        """The Triton models that a server serves now; None when it does not answer."""
        self._triton.observe(url, ready)

    def observe_leases(self, leases: Sequence[Lease] | None, now: float) -> None:
        """The live leases; None while they cannot be read. `now` in seconds of a monotonic clock."""
        self._leases.observe(leases, now)

    def server_action(self, url: str, now: float) -> Load | Unload | None:
        """What to do next on a server: its champion first, then what a command needs, the candidate, and the rest.

        The caller does it and reports by `passed`, `postpone`, `fail` or `observe`.
        """
        server = self.servers[url]
        if server.ready is None:
            return None
        all_wanted = self._wanted()
        for model, is_routed, replaces in all_wanted:
            name = self.triton_model(model.version)
            if name in server.passed or server.pauses.get(name, (now, 0))[0] > now:
                continue
            if not is_routed:
                self._releases.push_begun(model)
            return Load(model, present=is_routed and name in server.ready, routed=is_routed, replaces=replaces)
        wanted = {self.triton_model(model.version) for model, _, _ in all_wanted}
        return next((Unload(name) for name in sorted(server.ready - wanted) if self._may_unload(name, now)), None)

    def _wanted(self) -> list[_Wanted]:
        """Versions that every server is to have, the most urgent first."""
        there: list[_Wanted] = [(one.model, True, None) for one in routed(self.table)]
        try:
            plan = self._next_plan()
        except CommandRefusedError:
            plan = None
        named = {model.version for model, _, _ in there}
        needed: list[_Wanted] = [
            (one, False, None) for one in (plan.needs if plan is not None else ()) if one.version not in named
        ]
        champion = self.table.champion.model if self.table is not None else None
        candidate = self.candidate
        fresh: list[_Wanted] = [(candidate, False, champion)] if candidate is not None else []
        offered: list[_Wanted] = []
        for one in self._followed()[1:]:
            newer = self._releases.refresh_of(one.model, self.table)
            offered += [] if newer is None else [(newer, False, one.model)]
        if self.table is not None:
            offered += [(one, False, None) for one in self._releases.new_shadows(self.table)]
        return [*there[:1], *needed, *fresh, *there[1:], *offered]

    def passed(self, url: str, model: model_pb2.ModelVersion) -> None:
        """A version is loaded on a server and gave the right scores."""
        known = self._releases.known.get(model.version)
        if known is None or known.onnx.sha256 == model.onnx.sha256:
            # Else it was announced again with another file while this one was pushed.
            self._triton.passed(url, self.triton_model(model.version))

    def postpone(self, url: str, version: str, now: float) -> bool:
        """A version could not be brought onto a server for now. True on the first failure of a row."""
        name = self.triton_model(version)
        if not self._triton.anywhere(name):
            self._releases.push_ended({version})
        return self._triton.postpone(url, name, now)

    def unloaded(self, url: str, triton_model: str) -> None:
        """A Triton model was taken off a server."""
        self._triton.unloaded(url, triton_model)

    def _everywhere(self, version: str) -> bool:
        return self._triton.everywhere(self.triton_model(version))

    # What to write to the log.

    def next_table(self, now_us: int) -> model_pb2.RouteTable | None:
        """The table to write now, or None when the present one stands.

        Args:
            now_us: wall clock in microseconds since 1970-01-01 UTC.
        """
        by_itself = Author(ROLLOUT, now_us)
        if self.table is None:
            model = self.candidate
            if model is None or not self._everywhere(model.version):
                return None
            return route_tables.first(self.pipeline, model, by_itself)
        return (
            self._behind_a_guard_rail(now_us)
            or self._by_command(now_us)
            or self._refreshed(by_itself)
            or self._with_new_shadows(by_itself)
            or self._adopted()
        )

    def _behind_a_guard_rail(self, now_us: int) -> model_pb2.RouteTable | None:
        assert self.table is not None
        champion = self.table.champion.model
        crossed = self._crossed.get(champion.version)
        if crossed is None:
            return None
        author = Author(ROLLOUT, now_us, f"{crossed.rail}: {crossed.detail}")
        for earlier in self.table.previous:
            if earlier.model.version not in self._crossed and self._everywhere(earlier.model.version):
                kind = route_pb2.ROUTE_CHANGE_KIND_GUARD_RAIL
                return route_tables.rolled_back(self.table, earlier.model, (), kind, author)
        if self.held:
            return None
        frozen = route_tables.frozen(self.table, author)
        frozen.frozen.alert_subject = champion.version
        return frozen

    def _by_command(self, now_us: int) -> model_pb2.RouteTable | None:
        assert self.table is not None
        if not self._commands:
            return None
        placed = self._commands[0]
        command = placed.command
        author = Author(command.by or "unknown", now_us, command.reason, command.command_id)
        late = bool(command.expires_time_us) and now_us >= command.expires_time_us
        try:
            plan = self._next_plan()
            assert plan is not None
            ready = all(self._everywhere(one.version) for one in plan.needs)
            if late:
                raise CommandRefusedError("it was read too late" if ready else self._not_in_time(plan))
            if not ready:
                return None
            table = plan.build(author)
        except CommandRefusedError as refusal:
            table = route_tables.unchanged(self.table, author, refused=str(refusal))
        table.next_command = placed.offset + 1
        return table

    def _not_in_time(self, plan: Plan) -> str:
        if all(server.ready is None for server in self.servers.values()):
            return f"no Triton answers at {', '.join(self.servers)}"
        late = [one.version for one in plan.needs if not self._everywhere(one.version)]
        return f"version {', '.join(late)} is not loaded on every Triton that answers in the time that was given"

    def _refreshed(self, author: Author) -> model_pb2.RouteTable | None:
        assert self.table is not None
        newer = {one.model.version: self._releases.refresh_of(one.model, self.table) for one in self._followed()}
        ready = {old: new for old, new in newer.items() if new is not None and self._everywhere(new.version)}
        if not ready:
            return None
        return route_tables.refreshed(self.table, ready, self._keep_previous, author)

    def _with_new_shadows(self, author: Author) -> model_pb2.RouteTable | None:
        assert self.table is not None
        ready = [one for one in self._releases.new_shadows(self.table) if self._everywhere(one.version)]
        if not ready:
            return None
        shadows = [*(one.model for one in self.table.shadows), *ready]
        author = Author(author.by, author.time_us, "the pipeline declares its challengers to be shadows")
        return route_tables.with_shadows(self.table, shadows, route_pb2.ROUTE_CHANGE_KIND_PROMOTION, author)

    def _adopted(self) -> model_pb2.RouteTable | None:
        assert self.table is not None
        if self.table.adopted or not self._leases.adopted(self.table.epoch):
            return None
        adopted = route_tables.copy(self.table)
        adopted.adopted = True
        return adopted

    def _may_unload(self, name: str, now: float) -> bool:
        prefix, version = f"{self.pipeline}-", name.removeprefix(f"{self.pipeline}-")
        if not name.startswith(prefix) or not VERSION.fullmatch(version) or self._releases.is_pushed(version):
            # Not of this pipeline: the model of a pipeline `<pipeline>-x` has another hyphen in its name.
            return False
        if any(one.model.version == version for one in routed(self.table)):
            return False
        if version in self._releases.failed:
            return True
        if self.table is None:
            return False
        known = version in self._retired or version in self.table.withdrawn
        if version > self.table.champion.model.version and not known:
            # A version that is newer than what this process knows may belong to the process that replaced it.
            return False
        return self._leases.passed(version, self.table.epoch, now)
