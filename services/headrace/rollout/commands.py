"""What a command of an operator comes to, given the routes and what was announced. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from headrace.rollout import route_tables
from headrace.rollout.route_tables import Author, routed
from headrace.v1 import model_pb2, route_pb2

DEFAULT_CANARY_SHARE = 0.1

Build = Callable[[Author], model_pb2.RouteTable]
Order = tuple[int, str]

SHADOW, CANARY, CHAMPION = (
    route_pb2.ROUTE_STAGE_SHADOW,
    route_pb2.ROUTE_STAGE_CANARY,
    route_pb2.ROUTE_STAGE_CHAMPION,
)
PROMOTION, SET = route_pb2.ROUTE_CHANGE_KIND_PROMOTION, route_pb2.ROUTE_CHANGE_KIND_SET


class CommandRefusedError(Exception):
    """A command asks for what is not allowed or not there; the message says so in one sentence."""


@dataclass(frozen=True)
class Placed:
    """A command and its offset in `control`."""

    offset: int
    command: route_pb2.RouteCommand


@dataclass(frozen=True)
class Plan:
    """What a command comes to.

    Attributes:
        needs: versions that every ready server must have before.
        build: makes the table.
    """

    needs: tuple[model_pb2.ModelVersion, ...]
    build: Build


def order_of(model: model_pb2.ModelVersion) -> Order:
    """Sort key of versions: (learner epoch, version)."""
    return model.learner_epoch, model.version


@dataclass(frozen=True)
class Planner:
    """Makes plans.

    Attributes:
        table: the present routes.
        known: versions that are announced, by name.
        failed: names of those that failed a check.
        keep_previous: how many earlier champions stay.
        meant: versions that the names of recipes meant when the command was first looked at; added to. So a fast
            learner cannot keep a command from ever being carried out.
    """

    table: model_pb2.RouteTable
    known: Mapping[str, model_pb2.ModelVersion]
    failed: frozenset[str]
    keep_previous: int
    meant: dict[str, model_pb2.ModelVersion]

    def plan(self, command: route_pb2.RouteCommand) -> Plan:
        """What the command comes to.

        Raises:
            CommandRefusedError: it cannot be carried out.
        """
        action = command.WhichOneof("action")
        if action == "set":
            return self._set(command.set)
        if action == "promote":
            return self._promote(command.promote)
        if action == "rollback":
            return self._roll_back(command.rollback.version)
        if action == "freeze":
            if self.table.HasField("frozen"):
                return self._as_it_is(f"refreshes are frozen already, by {self.table.frozen.by}")
            return Plan((), lambda author: route_tables.frozen(self.table, author))
        if action == "unfreeze":
            if not self.table.HasField("frozen"):
                return self._as_it_is("refreshes are not frozen")
            return Plan((), lambda author: route_tables.unfrozen(self.table, author))
        raise CommandRefusedError("the command names no action that this rollout knows")

    def _promote(self, promote: route_pb2.Promote) -> Plan:
        model = self._resolve(promote.version, staged=True)
        recipe = model.recipe_fingerprint
        table = self.table
        if recipe == table.champion.model.recipe_fingerprint:
            raise CommandRefusedError(
                f"version {model.version} is of the champion's own recipe: it comes as a refresh, by itself; "
                "`headrace route rollback` or `set --pin` put a certain one there"
            )
        is_canary = table.HasField("canary") and table.canary.model.recipe_fingerprint == recipe
        is_shadow = any(one.model.recipe_fingerprint == recipe for one in table.shadows)
        stage = promote.stage or (CHAMPION if is_canary else CANARY if is_shadow else SHADOW)
        if stage == SHADOW:
            if is_canary:
                raise CommandRefusedError(
                    f"the recipe of version {model.version} is the canary; `set --no-canary` takes it away"
                )
            others = [one.model for one in table.shadows if one.model.recipe_fingerprint != recipe]
            if any(one.model.version == model.version for one in table.shadows):
                return self._as_it_is(f"version {model.version} is a shadow already")
            shadows = [*others, model]
            return Plan((model,), lambda author: route_tables.with_shadows(table, shadows, PROMOTION, author))
        if stage == CANARY:
            if table.HasField("canary") and not is_canary:
                raise CommandRefusedError(
                    f"version {table.canary.model.version} of another recipe is the canary; "
                    "`set --no-canary` takes it away"
                )
            share = self._share(promote.canary_share or table.canary.share or DEFAULT_CANARY_SHARE)
            if is_canary and table.canary.model.version == model.version and table.canary.share == share:
                return self._as_it_is(f"version {model.version} is the canary already")
            return Plan((model,), lambda author: route_tables.with_canary(table, model, share, PROMOTION, author))
        return Plan(
            (model,), lambda author: route_tables.with_champion(table, model, self.keep_previous, PROMOTION, author)
        )

    def _roll_back(self, name: str) -> Plan:
        table = self.table
        if name:
            target = self._resolve(name, recipes=False)
        elif table.previous:
            target = table.previous[0].model
        else:
            raise CommandRefusedError("no earlier champion is kept; name a version")
        if target.version == table.champion.model.version:
            return self._as_it_is(f"version {target.version} is the champion already")
        self._answered_before(target)
        champion = table.champion.model
        withdrawn = [
            one.version
            for one in self.known.values()
            if one.recipe_fingerprint == champion.recipe_fingerprint
            and order_of(target) < order_of(one) <= order_of(champion)
        ]
        kind = route_pb2.ROUTE_CHANGE_KIND_ROLLBACK
        return Plan((target,), lambda author: route_tables.rolled_back(table, target, withdrawn, kind, author))

    def _set(self, wanted: route_pb2.SetRoutes) -> Plan:
        table, needs = self.table, []
        steps: list[Callable[[model_pb2.RouteTable, Author], model_pb2.RouteTable]] = []
        if wanted.remove_canary and (wanted.canary or wanted.HasField("canary_share")):
            raise CommandRefusedError("a canary is either set or taken away")
        if wanted.canary or wanted.HasField("canary_share"):
            if not wanted.canary and not table.HasField("canary"):
                raise CommandRefusedError("there is no canary whose share could be set")
            canary = self._resolve(wanted.canary, staged=True) if wanted.canary else table.canary.model
            share = wanted.canary_share if wanted.HasField("canary_share") else table.canary.share
            share = self._share(share or DEFAULT_CANARY_SHARE)
            needs.append(canary)
            steps.append(lambda before, author: route_tables.with_canary(before, canary, share, SET, author))
        if wanted.remove_canary and table.HasField("canary"):
            steps.append(lambda before, author: route_tables.with_canary(before, None, 0, SET, author))
        if wanted.remove_shadows and wanted.shadows:
            raise CommandRefusedError("shadows are either set or taken away")
        if wanted.shadows or (wanted.remove_shadows and table.shadows):
            shadows = list(
                {one.version: one for one in (self._resolve(n, staged=True) for n in wanted.shadows)}.values()
            )
            needs.extend(shadows)
            steps.append(lambda before, author: route_tables.with_shadows(before, shadows, SET, author))
        if wanted.pin:
            pinned = self._resolve(wanted.pin, recipes=False)
            if pinned.version != table.champion.model.version:
                self._answered_before(pinned)
                needs.append(pinned)
                steps.append(
                    lambda before, author: route_tables.with_champion(before, pinned, self.keep_previous, SET, author)
                )
            if steps or not table.HasField("frozen"):
                steps.append(
                    lambda before, author: route_tables.frozen(before, _because_pinned(author, pinned.version))
                )
        if not steps:
            return self._as_it_is("nothing is to be changed")
        return Plan(tuple(needs), lambda author: _all(table, steps, author))

    def _as_it_is(self, why: str) -> Plan:
        def build(author: Author) -> model_pb2.RouteTable:
            return route_tables.unchanged(self.table, Author(author.by, author.time_us, why, author.command_id))

        return Plan((), build)

    def _resolve(self, name: str, *, recipes: bool = True, staged: bool = False) -> model_pb2.ModelVersion:
        """The version of that name, or of the recipe of that name the one that has a stage, or its newest."""
        there = {one.model.version: one.model for one in routed(self.table)}
        model = there.get(name) or self.known.get(name)
        if model is None and recipes:
            of_recipe = [one for one in self.known.values() if one.recipe == name and one.version not in self.failed]
            stages = [*([self.table.canary] if self.table.HasField("canary") else []), *self.table.shadows]
            at_stage = [one.model for one in stages if staged and one.model.recipe == name]
            model = self.meant.get(name) or next(iter(at_stage), max(of_recipe, key=order_of, default=None))
            if model is not None:
                self.meant[name] = model
        if model is None:
            raise CommandRefusedError(self._unknown(name, recipes))
        if model.version in self.failed:
            raise CommandRefusedError(f"version {model.version} failed its checks; the alert of that name says which")
        return model

    def _unknown(self, name: str, recipes: bool) -> str:
        versions = sorted(self.known)
        there = f"announced are {versions[0]} to {versions[-1]}" if versions else "none is announced"
        if not recipes:
            return f"no version {name!r}; {there}"
        return f"no version or recipe {name!r}; {there}, of {_listed(one.recipe for one in self.known.values())}"

    def _answered_before(self, model: model_pb2.ModelVersion) -> None:
        champion = self.table.champion.model
        previous = {one.model.version for one in self.table.previous}
        if model.recipe_fingerprint != champion.recipe_fingerprint and model.version not in previous:
            raise CommandRefusedError(
                f"version {model.version} is of another recipe and was not the champion before; "
                "`headrace route promote` brings it into traffic"
            )

    def _share(self, share: float) -> float:
        if not 0 < share < 1:
            raise CommandRefusedError(f"share {share:g} of a canary: allowed is above 0 and below 1")
        return share


def _because_pinned(author: Author, version: str) -> Author:
    detail = f"version {version} is pinned" + (f": {author.detail}" if author.detail else "")
    return Author(author.by, author.time_us, detail, author.command_id)


def _all(
    table: model_pb2.RouteTable,
    steps: Iterable[Callable[[model_pb2.RouteTable, Author], model_pb2.RouteTable]],
    author: Author,
) -> model_pb2.RouteTable:
    """Several steps as one change of one epoch."""
    changed = table
    for step in steps:
        changed = step(changed, author)
    if changed.epoch > table.epoch:
        changed.epoch = table.epoch + 1
        for change in changed.changes:
            change.epoch = min(change.epoch, changed.epoch)
    return changed


def _listed(recipes: Iterable[str]) -> str:
    names = sorted({one for one in recipes if one})
    return f"recipes {', '.join(names)}" if names else "recipes without names"
