"""What `headrace route` shows and says."""

from __future__ import annotations

from headrace.cli.route import said
from headrace.cli.route_output import lines
from headrace.platform.leases import GatewayLease
from headrace.rollout.operating import Effect
from headrace.v1 import model_pb2, route_pb2


def table() -> model_pb2.RouteTable:
    def routed(version: str, recipe: str, release: model_pb2.ReleaseKind.ValueType) -> model_pb2.RoutedVersion:
        model = model_pb2.ModelVersion(version=version, recipe=recipe, learned_count=1200)
        return model_pb2.RoutedVersion(model=model, release=release)

    made = model_pb2.RouteTable(pipeline="fraud", epoch=7, updated_time_us=1_700_000_000_000_000)
    made.champion.CopyFrom(routed("000012", "logistic", model_pb2.RELEASE_KIND_REFRESH))
    made.canary.CopyFrom(routed("000011", "forest", model_pb2.RELEASE_KIND_PROMOTION))
    made.canary.share = 0.25
    made.frozen.CopyFrom(route_pb2.RefreshFreeze(by="anna@desk", reason="holiday", time_us=1))
    made.changes.add(epoch=7, kind=route_pb2.ROUTE_CHANGE_KIND_PROMOTION, by="anna@desk", version="000011")
    made.changes.add(epoch=7, kind=route_pb2.ROUTE_CHANGE_KIND_NONE, by="bert", refused="no such version")
    return made


def test_the_table_shows_routes_users_servers_and_changes() -> None:
    leases = [GatewayLease("one", 7, frozenset({"000012"})), GatewayLease("two", 6, frozenset({"000010"}))]
    shown = lines(table(), leases, {"a:1": frozenset({"000011", "000012"}), "b:1": frozenset(), "c:1": None}, 10)
    text = "\n".join(" ".join(line.split()) for line in shown)
    assert "fraud: epoch 7, 2023-11-14 22:13:20Z, used by 1 of 2 gateways" in text
    assert "refreshes are FROZEN by anna@desk since 1970-01-01 00:00:00Z: holiday" in text
    assert "champion 000012 logistic refresh - 1,200 -" in text
    assert "canary 000011 forest promotion 25% 1,200 -" in text
    assert "a:1 ready 000011 000012 -" in text
    assert "b:1 lagging - 000011 000012" in text
    assert "c:1 away - 000011 000012" in text
    assert "- 7 refused - - bert no such version" in text


def test_without_redis_and_gateways_it_says_so() -> None:
    assert "who uses it is not known" in lines(table(), None, {}, 0)[0]
    assert "no gateway is live" in lines(table(), [], {}, 0)[0]


def test_what_a_command_did_is_one_line() -> None:
    change = route_pb2.RouteChange(
        kind=route_pb2.ROUTE_CHANGE_KIND_GUARD_RAIL, version="000011", replaced="000012", epoch=8
    )
    used = (GatewayLease("one", 8, frozenset()), GatewayLease("two", 8, frozenset()))
    assert said(Effect(change, table(), used, 0.123)) == (
        "guard rail 000011 for 000012: epoch 8, used by all 2 gateways, 0.12 s; refreshes are frozen"
    )
    nothing = route_pb2.RouteChange(kind=route_pb2.ROUTE_CHANGE_KIND_NONE, detail="refreshes are not frozen")
    assert said(Effect(nothing, table(), (), 0)) == "nothing changed: refreshes are not frozen"
