"""The next route table from the present one: refreshes, promotions, rollbacks, freezes. Pure.

Each function returns a new table and leaves the one it is given as it is. A table of a higher epoch changes what the
gateways do; one of the same epoch only says more about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from headrace.v1 import model_pb2, route_pb2

REFRESHES_KEPT = 10
OTHERS_KEPT = 40
ROLLOUT = "rollout"

Kind: TypeAlias = route_pb2.RouteChangeKind.ValueType


@dataclass(frozen=True)
class Author:
    """Who changes the routes, when and why.

    Attributes:
        by: a person, or "rollout".
        time_us: wall clock, in microseconds since 1970-01-01 UTC.
        detail: one sentence; may be empty.
        command_id: of the command that asked for it; empty for none.
    """

    by: str
    time_us: int
    detail: str = ""
    command_id: str = ""


def routed(table: model_pb2.RouteTable | None) -> Iterator[model_pb2.RoutedVersion]:
    """The versions of a table: champion, canary, shadows, then the champions before."""
    if table is None:
        return
    yield table.champion
    if table.HasField("canary"):
        yield table.canary
    yield from table.shadows
    yield from table.previous


def copy(table: model_pb2.RouteTable) -> model_pb2.RouteTable:
    """The same table again."""
    again = model_pb2.RouteTable()
    again.CopyFrom(table)
    return again


def first(pipeline: str, model: model_pb2.ModelVersion, author: Author) -> model_pb2.RouteTable:
    """The first table of a deployed pipeline."""
    table = model_pb2.RouteTable(pipeline=pipeline, epoch=1, updated_time_us=author.time_us)
    table.champion.CopyFrom(_route(pipeline, model, model_pb2.RELEASE_KIND_REFRESH, author))
    _note(table, route_pb2.ROUTE_CHANGE_KIND_REFRESH, author, version=model.version)
    return table


def refreshed(
    table: model_pb2.RouteTable, newer: Mapping[str, model_pb2.ModelVersion], keep_previous: int, author: Author
) -> model_pb2.RouteTable:
    """Newer versions of their recipes in the place of those that are routed.

    Args:
        table: the present one.
        newer: the version that is routed -> the one that takes its place.
        keep_previous: how many earlier champions stay.
        author: who.
    """
    changed = _next(table, author)
    if model := newer.get(table.champion.model.version):
        route = _route(table.pipeline, model, model_pb2.RELEASE_KIND_REFRESH, author)
        _put_champion(changed, route, keep_previous)
        _refresh_noted(changed, model, table.champion, author)
    offered = [*([changed.canary] if changed.HasField("canary") else []), *changed.shadows]
    for one in offered:
        if model := newer.get(one.model.version):
            before, share = _copy_route(one), one.share
            one.CopyFrom(_route(table.pipeline, model, model_pb2.RELEASE_KIND_REFRESH, author, share))
            _refresh_noted(changed, model, before, author)
    return changed


def with_champion(
    table: model_pb2.RouteTable, model: model_pb2.ModelVersion, keep_previous: int, kind: Kind, author: Author
) -> model_pb2.RouteTable:
    """Another champion, and the one before among those that stay.

    Canary and shadows of its recipe leave: it has no need of them any more.
    """
    changed = _next(table, author)
    release = model_pb2.RELEASE_KIND_REFRESH
    if model.recipe_fingerprint != table.champion.model.recipe_fingerprint:
        release = model_pb2.RELEASE_KIND_PROMOTION
    _put_champion(changed, _route(table.pipeline, model, release, author), keep_previous)
    _leave_stages(changed, model.recipe_fingerprint)
    _note(changed, kind, author, version=model.version, replaced=table.champion.model.version)
    return changed


def rolled_back(
    table: model_pb2.RouteTable, model: model_pb2.ModelVersion, withdrawn: Iterable[str], kind: Kind, author: Author
) -> model_pb2.RouteTable:
    """An earlier version as the champion again; what it replaces is withdrawn and refreshes are frozen.

    Args:
        table: the present one.
        model: the version to put back.
        withdrawn: versions that do not come back by themselves, beside the champion that it replaces.
        kind: by an operator or by a guard rail.
        author: who.
    """
    changed = _next(table, author)
    gone = {*withdrawn, table.champion.model.version}
    known = next((one for one in routed(table) if one.model.version == model.version), None)
    route = _route(table.pipeline, model, known.release if known is not None else model.kind, author)
    stay = [one for one in table.previous if one.model.version not in gone | {model.version}]
    del changed.previous[:]
    changed.previous.extend(stay)
    changed.champion.CopyFrom(route)
    changed.withdrawn[:] = sorted(({*table.withdrawn} | gone) - {model.version})
    _note(changed, kind, author, version=model.version, replaced=table.champion.model.version)
    # As it was asked for, so also who froze it: the sentence says why.
    replaced = table.champion.model.version
    changed.frozen.CopyFrom(
        route_pb2.RefreshFreeze(
            by=author.by, time_us=author.time_us, reason=author.detail or f"{replaced} was rolled back"
        )
    )
    if kind == route_pb2.ROUTE_CHANGE_KIND_GUARD_RAIL:
        changed.frozen.alert_subject = replaced
    elif table.frozen.alert_subject:
        changed.frozen.alert_subject = table.frozen.alert_subject
    return changed


def with_canary(
    table: model_pb2.RouteTable, model: model_pb2.ModelVersion | None, share: float, kind: Kind, author: Author
) -> model_pb2.RouteTable:
    """Another canary or another share of it; None takes it away."""
    changed = _next(table, author)
    before = table.canary.model.version
    changed.ClearField("canary")
    if model is not None:
        _leave_stages(changed, model.recipe_fingerprint)
        changed.canary.CopyFrom(_route(table.pipeline, model, _release_of(table, model), author, share))
    _note(changed, kind, author, version=model.version if model is not None else "", replaced=before)
    return changed


def with_shadows(
    table: model_pb2.RouteTable, models: Iterable[model_pb2.ModelVersion], kind: Kind, author: Author
) -> model_pb2.RouteTable:
    """Other shadows in the place of those there. One that was a shadow stays as it is."""
    changed = _next(table, author)
    there = {one.model.version: one for one in table.shadows}
    del changed.shadows[:]
    for model in models:
        known = there.get(model.version)
        release = _release_of(table, model)
        changed.shadows.append(known if known is not None else _route(table.pipeline, model, release, author))
    before = {one.model.recipe_fingerprint for one in table.shadows} | {*table.unshadowed}
    changed.unshadowed[:] = sorted(before - {one.model.recipe_fingerprint for one in changed.shadows})
    _note(changed, kind, author, version=", ".join(one.model.version for one in changed.shadows))
    return changed


def frozen(table: model_pb2.RouteTable, author: Author) -> model_pb2.RouteTable:
    """Refreshes stopped; what answers is the same."""
    changed = copy(table)
    changed.frozen.CopyFrom(
        route_pb2.RefreshFreeze(by=author.by, time_us=author.time_us, reason=author.detail or "no reason was given")
    )
    _note(changed, route_pb2.ROUTE_CHANGE_KIND_FREEZE, author, version=table.champion.model.version)
    return changed


def unfrozen(table: model_pb2.RouteTable, author: Author) -> model_pb2.RouteTable:
    """Refreshes allowed again; what answers is the same."""
    changed = copy(table)
    changed.ClearField("frozen")
    _note(changed, route_pb2.ROUTE_CHANGE_KIND_UNFREEZE, author, version=table.champion.model.version)
    return changed


def unchanged(table: model_pb2.RouteTable, author: Author, *, refused: str = "") -> model_pb2.RouteTable:
    """The same routes with a note that a command changed nothing, or why it was refused."""
    changed = copy(table)
    _note(changed, route_pb2.ROUTE_CHANGE_KIND_NONE, author, refused=refused)
    return changed


def _next(table: model_pb2.RouteTable, author: Author) -> model_pb2.RouteTable:
    changed = copy(table)
    changed.epoch, changed.adopted, changed.updated_time_us = table.epoch + 1, False, author.time_us
    return changed


def _route(
    pipeline: str,
    model: model_pb2.ModelVersion,
    release: model_pb2.ReleaseKind.ValueType,
    author: Author,
    share: float = 0.0,
) -> model_pb2.RoutedVersion:
    return model_pb2.RoutedVersion(
        model=model,
        triton_model=f"{pipeline}-{model.version}",
        share=share,
        release=release,
        since_time_us=author.time_us,
    )


def _copy_route(one: model_pb2.RoutedVersion) -> model_pb2.RoutedVersion:
    again = model_pb2.RoutedVersion()
    again.CopyFrom(one)
    return again


def _release_of(table: model_pb2.RouteTable, model: model_pb2.ModelVersion) -> model_pb2.ReleaseKind.ValueType:
    same = model.recipe_fingerprint == table.champion.model.recipe_fingerprint
    return model_pb2.RELEASE_KIND_REFRESH if same else model_pb2.RELEASE_KIND_PROMOTION


def _put_champion(changed: model_pb2.RouteTable, route: model_pb2.RoutedVersion, keep_previous: int) -> None:
    earlier = [_copy_route(one) for one in (changed.champion, *changed.previous)]
    del changed.previous[:]
    changed.previous.extend([one for one in earlier if one.model.version != route.model.version][:keep_previous])
    before = earlier[0].model
    restarted = route.model.learner_epoch > before.learner_epoch and route.model.version < before.version
    changed.champion.CopyFrom(route)
    # Only versions behind the champion can come back by themselves; those of a learner that began anew are others.
    changed.withdrawn[:] = [one for one in changed.withdrawn if one > route.model.version and not restarted]


def _leave_stages(changed: model_pb2.RouteTable, recipe: str) -> None:
    if changed.HasField("canary") and changed.canary.model.recipe_fingerprint == recipe:
        changed.ClearField("canary")
    stay = [_copy_route(one) for one in changed.shadows if one.model.recipe_fingerprint != recipe]
    del changed.shadows[:]
    changed.shadows.extend(stay)


def _refresh_noted(
    changed: model_pb2.RouteTable, model: model_pb2.ModelVersion, before: model_pb2.RoutedVersion, author: Author
) -> None:
    kind = route_pb2.ROUTE_CHANGE_KIND_REFRESH
    _note(changed, kind, author, version=model.version, replaced=before.model.version)


def _note(
    changed: model_pb2.RouteTable,
    kind: Kind,
    author: Author,
    *,
    version: str = "",
    replaced: str = "",
    refused: str = "",
) -> None:
    changed.changes.append(
        route_pb2.RouteChange(
            epoch=changed.epoch,
            time_us=author.time_us,
            kind=kind,
            by=author.by,
            version=version,
            replaced=replaced,
            detail=author.detail,
            command_id=author.command_id,
            refused=refused,
        )
    )
    refreshes, others, stay = REFRESHES_KEPT, OTHERS_KEPT, []
    for change in reversed(changed.changes):
        refresh = change.kind == route_pb2.ROUTE_CHANGE_KIND_REFRESH
        refreshes, others = refreshes - refresh, others - (not refresh)
        if (refreshes if refresh else others) >= 0:
            stay.append(change)
    if len(stay) < len(changed.changes):
        kept = list(reversed([_copy_change(one) for one in stay]))
        del changed.changes[:]
        changed.changes.extend(kept)


def _copy_change(change: route_pb2.RouteChange) -> route_pb2.RouteChange:
    again = route_pb2.RouteChange()
    again.CopyFrom(change)
    return again
