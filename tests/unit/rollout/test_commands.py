"""What commands of an operator do to the routes, and what refreshes and promotions do by themselves."""

from __future__ import annotations

import re

import pytest

from headrace.rollout.decisions import Announcement
from headrace.rollout.guard_rails import Crossed, alerts_between
from headrace.v1 import alert_pb2, model_pb2, route_pb2
from headrace.v1.route_pb2 import FreezeRefreshes, Promote, Rollback, SetRoutes, UnfreezeRefreshes
from tests.unit.rollout.routes import Lease, Routes, champion, command, forest, previous, shadows, version

REFRESH, PROMOTION = model_pb2.RELEASE_KIND_REFRESH, model_pb2.RELEASE_KIND_PROMOTION


def served(count: int = 4, **options: bool) -> Routes:
    routes = Routes(**options)
    routes.announce(*(version(number) for number in range(count)))
    return routes


def test_a_rollback_puts_the_champion_before_back_and_freezes() -> None:
    routes = served()
    change = routes.give(command(rollback=Rollback()))
    table = routes.table
    assert (champion(table), previous(table), table.epoch) == ("000002", ["000001"], 5)
    assert (change.kind, change.by, change.detail) == (route_pb2.ROUTE_CHANGE_KIND_ROLLBACK, "anna", "why")
    assert (change.version, change.replaced, change.epoch) == ("000002", "000003", 5)
    assert (table.frozen.by, table.frozen.reason) == ("anna", "why")
    routes.announce(version(4))
    assert champion(routes.table) == "000002"


def test_what_was_rolled_back_does_not_come_back_and_what_is_newer_does() -> None:
    routes = served()
    routes.give(command("1", rollback=Rollback(version="000001")))
    assert list(routes.table.withdrawn) == ["000002", "000003"]
    routes.give(command("2", unfreeze=UnfreezeRefreshes()))
    assert champion(routes.table) == "000001"
    routes.announce(version(4))
    assert champion(routes.table) == "000004"
    assert not routes.table.withdrawn


def test_a_version_that_was_rolled_back_comes_by_name() -> None:
    routes = served()
    routes.give(command("1", rollback=Rollback()))
    routes.give(command("2", rollback=Rollback(version="000003")))
    assert (champion(routes.table), list(routes.table.withdrawn)) == ("000003", ["000002"])


def test_a_rollback_to_the_champion_changes_nothing() -> None:
    routes = served()
    change = routes.give(command(rollback=Rollback(version="000003")))
    assert (change.kind, routes.table.epoch) == (route_pb2.ROUTE_CHANGE_KIND_NONE, 4)


def test_a_command_is_carried_out_once() -> None:
    routes = served()
    routes.give(command("same", rollback=Rollback()))
    routes.give(command("same", rollback=Rollback()))
    assert champion(routes.table) == "000002"
    # A process that took over reads them again.
    restarted = Routes()
    restarted.state.restore(routes.table)
    assert not restarted.state.give(0, command("other", rollback=Rollback()))


def test_frozen_refreshes_wait_and_then_the_newest_comes() -> None:
    routes = served(1)
    routes.give(command("1", freeze=FreezeRefreshes()))
    assert routes.table.epoch == 1
    assert routes.table.frozen.by == "anna"
    routes.announce(version(1), version(2))
    assert champion(routes.table) == "000000"
    assert routes.give(command("2", freeze=FreezeRefreshes())).kind == route_pb2.ROUTE_CHANGE_KIND_NONE
    routes.give(command("3", unfreeze=UnfreezeRefreshes()))
    assert champion(routes.table) == "000002"
    assert routes.give(command("4", unfreeze=UnfreezeRefreshes())).kind == route_pb2.ROUTE_CHANGE_KIND_NONE


def test_a_pinned_version_stays() -> None:
    routes = served()
    routes.give(command(set=SetRoutes(pin="000001")))
    assert (champion(routes.table), routes.table.epoch) == ("000001", 5)
    routes.announce(version(4))
    assert champion(routes.table) == "000001"
    assert routes.table.frozen.reason == "version 000001 is pinned: why"


def test_another_recipe_takes_no_traffic_by_itself() -> None:
    routes = served(1)
    assert routes.state.announce(forest(1)) is Announcement.PROMOTION
    routes.settle()
    assert (champion(routes.table), shadows(routes.table)) == ("000000", [])
    assert routes.state.candidate is None
    # Not even when the pipeline declares it to be the champion's: the version that answers is of another one.
    changed = version(2, recipe="linear")
    assert routes.state.announce(changed) is Announcement.PROMOTION
    assert champion(routes.settle()) == "000000"


def test_a_declared_challenger_becomes_a_shadow_and_follows_its_recipe() -> None:
    routes = served(1, shadow_challengers=True)
    routes.announce(forest(1))
    assert (champion(routes.table), shadows(routes.table)) == ("000000", ["000001"])
    assert routes.table.shadows[0].release == PROMOTION
    routes.announce(version(2), forest(3))
    assert (champion(routes.table), shadows(routes.table)) == ("000002", ["000003"])
    assert (routes.table.champion.release, routes.table.shadows[0].release) == (REFRESH, REFRESH)
    routes.give(command(set=SetRoutes(remove_shadows=True)))
    routes.announce(forest(4))
    assert shadows(routes.table) == []


def test_a_promotion_goes_from_shadow_to_canary_to_champion_and_back() -> None:
    routes = served(1)
    routes.announce(forest(1), version(2))
    stages = []
    for step in "123":
        routes.give(command(step, promote=Promote(version="forest")))
        table = routes.table
        stages.append((champion(table), table.canary.model.version, table.canary.share, shadows(table)))
    assert stages == [("000002", "", 0, ["000001"]), ("000002", "000001", 0.1, []), ("000001", "", 0, [])]
    assert routes.table.champion.release == PROMOTION
    assert [one.kind for one in routes.table.changes][-3:] == [route_pb2.ROUTE_CHANGE_KIND_PROMOTION] * 3
    # From now on a refresh is what is of the new champion's recipe.
    routes.announce(version(3), forest(4))
    assert (champion(routes.table), previous(routes.table)) == ("000004", ["000001", "000002"])
    assert "000003" not in {one.model.version for one in routes.table.previous}
    routes.give(command("4", rollback=Rollback(version="000002")))
    assert champion(routes.table) == "000002"


def test_a_canary_keeps_its_share_through_refreshes_and_its_version_through_a_promotion() -> None:
    routes = served(1)
    routes.announce(forest(1))
    routes.give(command("1", set=SetRoutes(canary="forest", canary_share=0.25)))
    routes.announce(forest(2))
    assert (routes.table.canary.model.version, routes.table.canary.share) == ("000002", 0.25)
    routes.give(command("2", set=SetRoutes(canary_share=0.5)))
    assert routes.table.canary.share == 0.5
    routes.give(command("3", promote=Promote(version="forest", stage=route_pb2.ROUTE_STAGE_CHAMPION)))
    assert champion(routes.table) == "000002"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (command(rollback=Rollback(version="000009")), "no version '000009'; announced are 000000 to 000002"),
        (command(rollback=Rollback(version="000002")), "of another recipe and was not the champion before"),
        (command(promote=Promote(version="tree")), "no version or recipe 'tree'; .* recipes forest, logistic"),
        (command(promote=Promote(version="000001")), "of the champion's own recipe"),
        (command(set=SetRoutes(canary_share=0.5)), "no canary whose share"),
        (command(set=SetRoutes(canary="forest", canary_share=1.5)), "allowed is above 0 and below 1"),
        (command(set=SetRoutes(canary="forest", remove_canary=True)), "either set or taken away"),
        (command(), "names no action"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line_and_changes_nothing(given: route_pb2.RouteCommand, said: str) -> None:
    routes = served(2)
    routes.announce(forest(2))
    change = routes.give(given)
    assert change.kind == route_pb2.ROUTE_CHANGE_KIND_NONE
    assert re.search(said, change.refused)
    assert (champion(routes.table), routes.table.epoch, routes.table.next_command) == ("000001", 2, 1)


def test_without_an_earlier_champion_there_is_nothing_to_roll_back_to() -> None:
    assert served(1).give(command(rollback=Rollback())).refused == "no earlier champion is kept; name a version"


def test_a_command_waits_for_every_ready_server_and_is_refused_when_its_time_is_over() -> None:
    routes = Routes("a", "b")
    routes.announce(version(0), forest(1))
    given = command("1", promote=Promote(version="forest"))
    given.expires_time_us = 100
    routes.state.give(0, given)
    action = routes.state.server_action("a", 0)
    assert action is not None
    routes.state.passed("a", forest(1))
    assert routes.state.next_table(99) is None
    late = routes.state.next_table(100)
    assert late is not None
    assert "not loaded on every Triton" in late.changes[-1].refused
    routes.state.observe("b", None)
    done = routes.state.next_table(99)
    assert done is not None
    assert shadows(done) == ["000001"]


def test_a_command_whose_version_fails_is_refused_with_the_reason() -> None:
    routes = served(1)
    routes.announce(forest(1))
    routes.state.give(0, command("1", promote=Promote(version="forest")))
    assert routes.state.server_action("a", 0) is not None
    routes.state.fail(forest(1), "golden_rows: it differs")
    assert champion(routes.settle()) == "000000"
    assert routes.table.changes[-1].refused == "version 000001 failed: golden_rows: it differs"


def test_a_crossed_guard_rail_puts_the_parent_back_freezes_and_says_so_until_it_is_resolved() -> None:
    routes = served()
    crossed = Crossed("scores", "all are the same", 0.5, 0.25)
    assert not routes.state.cross("000002", crossed)
    assert routes.state.cross("000003", crossed)
    before = routes.table
    table = routes.settle(7)
    assert (champion(table), table.frozen.by, table.frozen.alert_subject) == ("000002", "rollout", "000003")
    assert table.changes[-1].kind == route_pb2.ROUTE_CHANGE_KIND_GUARD_RAIL
    (raised,) = alerts_between(before, table, crossed)
    assert (raised.alert_id, raised.value, raised.threshold) == ("guard_rail/000003/7", 0.5, 0.25)
    assert raised.state == alert_pb2.ALERT_STATE_RAISED
    routes.announce(version(4))
    assert champion(routes.table) == "000002"
    frozen = routes.table
    routes.give(command(unfreeze=UnfreezeRefreshes()), now_us=9)
    (cleared,) = alerts_between(
        frozen, next(one for one in routes.tables if not one.HasField("frozen") and one.epoch == 5), None
    )
    assert (cleared.subject, cleared.state) == ("000003", alert_pb2.ALERT_STATE_CLEARED)
    assert champion(routes.table) == "000004"


def test_without_a_parent_a_crossed_guard_rail_freezes() -> None:
    routes = served(1)
    routes.state.cross("000000", Crossed("failures", "many"))
    assert champion(routes.settle()) == "000000"
    assert routes.table.frozen.alert_subject == "000000"


def test_a_server_that_takes_no_version_is_not_waited_for() -> None:
    routes = Routes("a", "b")
    routes.announce(version(0))
    routes.state.announce(version(1))
    routes.state.passed("a", version(1))
    for _ in range(3):
        assert routes.state.next_table(1) is None
        routes.state.postpone("b", "000001", 0)
    table = routes.state.next_table(1)
    assert table is not None
    assert champion(table) == "000001"


def test_the_log_of_changes_keeps_what_people_did_longer_than_refreshes() -> None:
    routes = served(1)
    routes.give(command("kept", freeze=FreezeRefreshes()))
    routes.give(command("too", unfreeze=UnfreezeRefreshes()))
    routes.announce(*(version(number) for number in range(1, 40)))
    kinds = [one.kind for one in routes.table.changes]
    assert kinds.count(route_pb2.ROUTE_CHANGE_KIND_REFRESH) == 10
    assert {"kept", "too"} <= {one.command_id for one in routes.table.changes}


def test_versions_of_the_other_recipe_are_unloaded_when_nobody_uses_them() -> None:
    routes = served(1)
    routes.announce(forest(1))
    routes.give(command("1", promote=Promote(version="forest")))
    routes.give(command("2", set=SetRoutes(remove_shadows=True)))
    routes.state.observe_leases([Lease(routes.table.epoch - 1, frozenset({"000001"}))], 0)
    routes.load()
    assert routes.state.servers["a"].passed == {"fraud-000000", "fraud-000001"}
    routes.state.observe_leases([Lease(routes.table.epoch, frozenset({"000000"}))], 0)
    routes.load()
    assert routes.state.servers["a"].passed == {"fraud-000000"}
