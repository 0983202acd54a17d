"""The route table, for a person to read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from headrace.platform.leases import GatewayLease
from headrace.v1 import model_pb2, route_pb2


def lines(
    table: model_pb2.RouteTable,
    leases: Sequence[GatewayLease] | None,
    loaded: Mapping[str, frozenset[str] | None],
    changes: int,
) -> list[str]:
    """The table, its users and the servers, line by line.

    Args:
        table: the present one.
        leases: of the live gateways; None where Redis does not answer.
        loaded: by server, the versions that it has; None for one that does not answer.
        changes: how many changes to show, the newest.
    """
    shown = [f"{table.pipeline}: epoch {table.epoch}, {time(table.updated_time_us)}, {_users(table, leases)}"]
    if table.HasField("frozen"):
        frozen = table.frozen
        shown.append(f"refreshes are FROZEN by {frozen.by} since {time(frozen.time_us)}: {frozen.reason}")
    else:
        shown.append("refreshes: on")
    if table.withdrawn:
        shown.append(f"withdrawn: {', '.join(table.withdrawn)}")
    rows: list[tuple[str, ...]] = [("ROUTE", "VERSION", "RECIPE", "RELEASE", "SHARE", "LEARNED", "SINCE")]
    rows += [_route("champion", table.champion)]
    rows += [_route("canary", table.canary)] if table.HasField("canary") else []
    rows += [_route("shadow", one) for one in table.shadows] + [_route("previous", one) for one in table.previous]
    shown += ["", *columns(rows)]
    if leases:
        gateways = [("GATEWAY", "EPOCH", "VERSIONS")]
        gateways += [(one.instance, str(one.epoch), " ".join(sorted(one.versions))) for one in leases]
        shown += ["", *columns(gateways)]
    servers = [("TRITON", "STATE", "VERSIONS", "MISSING")]
    needed = {row[1] for row in rows[1:]}
    for url, versions in loaded.items():
        if versions is None:
            servers.append((url, "away", "-", " ".join(sorted(needed))))
        else:
            missing = needed - versions
            state = "ready" if not missing else "lagging"
            servers.append((url, state, " ".join(sorted(versions)) or "-", " ".join(sorted(missing)) or "-"))
    shown += ["", *columns(servers)]
    newest = list(table.changes)[-changes:] if changes else []
    if newest:
        shown += ["", *columns([("WHEN", "EPOCH", "CHANGE", "VERSION", "FOR", "BY", "WHY"), *map(_change, newest)])]
    return shown


def _users(table: model_pb2.RouteTable, leases: Sequence[GatewayLease] | None) -> str:
    if leases is None:
        return "adopted" if table.adopted else "who uses it is not known: Redis does not answer"
    if not leases:
        return "no gateway is live"
    using = sum(one.epoch >= table.epoch for one in leases)
    return f"used by {using} of {len(leases)} gateways"


def _route(name: str, one: model_pb2.RoutedVersion) -> tuple[str, ...]:
    model = one.model
    return (
        name,
        model.version,
        model.recipe or model.recipe_fingerprint[:8] or "-",
        model_pb2.ReleaseKind.Name(one.release).removeprefix("RELEASE_KIND_").lower() if one.release else "-",
        f"{one.share:.0%}" if one.share else "-",
        "nothing" if model.untrained else f"{model.learned_count:,}",
        time(one.since_time_us),
    )


def _change(change: route_pb2.RouteChange) -> tuple[str, ...]:
    kind = route_pb2.RouteChangeKind.Name(change.kind).removeprefix("ROUTE_CHANGE_KIND_").lower().replace("_", " ")
    return (
        time(change.time_us),
        str(change.epoch),
        "refused" if change.refused else kind,
        change.version or "-",
        change.replaced or "-",
        change.by,
        change.refused or change.detail or "-",
    )


def time(time_us: int) -> str:
    """A wall-clock time in microseconds, in UTC; a dash for 0."""
    return dt.datetime.fromtimestamp(time_us / 1e6, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ") if time_us else "-"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table, each column as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
