"""What the rollout does next: single cases, then any order of events."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.rollout.commands import order_of
from headrace.rollout.decisions import Announcement, Rollout
from headrace.rollout.server_actions import Load, Unload
from headrace.v1 import model_pb2, route_pb2

GRACE_S = 10.0


@dataclass(frozen=True)
class Lease:
    epoch: int
    versions: frozenset[str]


def version(number: int, *, learner_epoch: int = 1, content: str = "") -> model_pb2.ModelVersion:
    name = f"{number:06d}"
    return model_pb2.ModelVersion(
        pipeline="fraud",
        version=name,
        kind=model_pb2.RELEASE_KIND_REFRESH,
        learner_epoch=learner_epoch,
        onnx=model_pb2.Artifact(sha256=hashlib.sha256((name + content).encode()).digest()),
    )


def rollout(*urls: str, keep_previous: int = 2) -> Rollout:
    made = Rollout("fraud", urls or ("a",), keep_previous=keep_previous, lease_grace_s=GRACE_S)
    for url in made.servers:
        made.observe(url, frozenset())
    return made


def deliver(state: Rollout, url: str = "a") -> model_pb2.ModelVersion:
    action = state.server_action(url, 0)
    assert isinstance(action, Load)
    state.passed(url, action.model)
    return action.model


def route(state: Rollout) -> model_pb2.RouteTable:
    table = state.next_table(1)
    assert table is not None
    state.restore(table)
    return table


def serve(state: Rollout, number: int) -> model_pb2.RouteTable:
    assert state.announce(version(number)) is Announcement.REFRESH
    deliver(state)
    return route(state)


def test_the_newest_version_is_pushed_and_routed_and_those_between_are_skipped() -> None:
    state = rollout()
    for number in (0, 1, 2):
        state.announce(version(number))
    assert deliver(state).version == "000002"
    table = route(state)
    assert (table.epoch, table.champion.triton_model, table.adopted) == (1, "fraud-000002", False)
    assert state.server_action("a", 0) is None
    assert state.next_table(1) is None


def test_a_push_that_has_begun_is_finished_first() -> None:
    state = rollout()
    state.announce(version(0))
    action = state.server_action("a", 0)
    assert isinstance(action, Load)
    state.announce(version(1))
    assert state.candidate == version(0)
    state.passed("a", version(0))
    assert route(state).champion.model.version == "000000"
    assert deliver(state).version == "000001"


def test_epochs_go_on_from_a_restored_table() -> None:
    state = rollout()
    state.restore(model_pb2.RouteTable(pipeline="fraud", epoch=41, champion=model_pb2.RoutedVersion(model=version(3))))
    assert state.announce(version(2)) is Announcement.KNOWN
    assert state.announce(version(3)) is Announcement.KNOWN
    assert state.announce(version(4)) is Announcement.REFRESH
    # The champion comes first: the server lost it.
    assert deliver(state).version == "000003"
    assert deliver(state).version == "000004"
    table = route(state)
    assert table.epoch == 42
    assert [routed.model.version for routed in table.previous] == ["000003"]


def test_a_model_of_the_table_that_the_server_has_is_only_checked() -> None:
    state = rollout()
    state.restore(model_pb2.RouteTable(pipeline="fraud", epoch=1, champion=model_pb2.RoutedVersion(model=version(3))))
    state.observe("a", frozenset({"fraud-000003"}))
    assert state.server_action("a", 0) == Load(version(3), present=True, routed=True)


def test_a_replaced_learner_is_ignored() -> None:
    state = rollout()
    state.announce(version(5, learner_epoch=2))
    assert state.announce(version(6, learner_epoch=1)) is Announcement.ZOMBIE
    assert deliver(state).version == "000005"
    route(state)
    assert state.announce(version(7, learner_epoch=1)) is Announcement.ZOMBIE
    assert state.candidate is None


def test_what_earlier_learners_announced_is_known_after_a_restart() -> None:
    log = [version(4), version(5), version(6, learner_epoch=2), version(7, learner_epoch=3)]
    state = rollout()
    for model in log:
        state.announce(model)
    deliver(state)
    again = rollout()
    again.restore(route(state))
    assert [again.announce(model) for model in log] == [Announcement.KNOWN] * len(log)
    assert again.candidate is None
    assert deliver(again).version == "000007"
    back = route_pb2.RouteCommand(rollback=route_pb2.Rollback(version="000004"), by="test")
    for one in (state, again):
        assert one.give(0, back)
        assert deliver(one).version == "000004"
        assert route(one).champion.model == version(4)


def test_a_learner_that_lost_its_state_starts_over() -> None:
    state = rollout()
    serve(state, 7)
    assert state.announce(version(0, learner_epoch=2)) is Announcement.REFRESH
    deliver(state)
    assert route(state).champion.model == version(0, learner_epoch=2)


def test_a_version_that_changes_its_content_is_a_conflict() -> None:
    state = rollout()
    serve(state, 7)
    assert state.announce(version(7, content="other")) is Announcement.CONFLICT
    assert state.candidate is None


def test_a_version_that_changes_while_it_is_pushed_is_pushed_again() -> None:
    state = rollout()
    state.announce(version(0))
    action = state.server_action("a", 0)
    assert isinstance(action, Load)
    state.announce(version(0, learner_epoch=2, content="other"))
    state.passed("a", action.model)
    assert state.next_table(1) is None
    assert deliver(state) == version(0, learner_epoch=2, content="other")
    assert route(state).champion.model.learner_epoch == 2


def test_a_failed_version_gives_way_to_the_next_newest_and_is_unloaded() -> None:
    state = rollout()
    state.announce(version(0))
    state.announce(version(1))
    assert state.fail(version(1))
    assert not state.fail(version(1))
    state.observe("a", frozenset({"fraud-000001"}))
    assert state.announce(version(1)) is Announcement.KNOWN
    assert deliver(state).version == "000000"
    assert route(state).champion.model.version == "000000"
    assert state.server_action("a", 0) == Unload("fraud-000001")


def test_promotions_are_not_routed() -> None:
    model = version(1)
    model.kind = model_pb2.RELEASE_KIND_PROMOTION
    assert rollout().announce(model) is Announcement.PROMOTION


def test_every_reachable_server_must_have_the_version_and_one_at_least() -> None:
    state = rollout("a", "b")
    state.announce(version(0))
    deliver(state, "a")
    assert state.next_table(1) is None
    state.observe("b", None)
    assert route(state).epoch == 1
    state.observe("a", None)
    state.announce(version(1))
    assert state.next_table(1) is None
    state.observe("b", frozenset())
    assert deliver(state, "b").version == "000000"


def test_a_server_that_was_not_asked_yet_is_waited_for() -> None:
    state = Rollout("fraud", ("a", "b"), keep_previous=2, lease_grace_s=GRACE_S)
    state.announce(version(0))
    state.observe("a", frozenset())
    deliver(state, "a")
    assert state.next_table(1) is None
    state.observe("b", None)
    assert state.next_table(1) is not None


def test_what_a_restarted_server_lost_is_loaded_again_champion_first() -> None:
    state = rollout()
    for number in range(3):
        serve(state, number)
    state.observe("a", None)
    assert state.server_action("a", 0) is None
    state.observe("a", frozenset())
    assert [deliver(state).version for _ in range(3)] == ["000002", "000001", "000000"]
    assert state.server_action("a", 0) is None


def test_a_server_that_keeps_failing_is_asked_less_and_less_often() -> None:
    state = rollout()
    serve(state, 0)
    state.observe("a", frozenset())
    now, waits = 0.0, []
    assert state.postpone("a", "000000", now)
    for _ in range(8):
        before = now
        while state.server_action("a", now) is None:
            now += 0.05
        waits.append(now - before)
        assert not state.postpone("a", "000000", now)
    assert waits == sorted(waits)
    assert waits[-1] < 5.1


def test_adopted_when_every_live_lease_names_the_epoch() -> None:
    state = rollout()
    table = serve(state, 0)
    for leases in (None, [], [Lease(1, frozenset()), Lease(0, frozenset())]):
        state.observe_leases(leases, 0)
        assert state.next_table(2) is None
    state.observe_leases([Lease(1, frozenset({"000000"}))], 0)
    adopted = state.next_table(2)
    assert adopted is not None
    assert adopted.adopted
    assert (adopted.epoch, adopted.champion, adopted.updated_time_us) == (1, table.champion, table.updated_time_us)
    state.restore(adopted)
    assert state.next_table(3) is None


def test_a_lease_keeps_a_version_loaded() -> None:
    state = rollout(keep_previous=0)
    serve(state, 0)
    serve(state, 1)
    state.observe_leases([Lease(1, frozenset({"000000"}))], 0)
    assert state.server_action("a", 0) is None
    state.observe_leases([Lease(2, frozenset({"000000", "000001"}))], 0)
    assert state.server_action("a", 0) is None
    state.observe_leases([Lease(2, frozenset({"000001"}))], 0)
    assert state.server_action("a", 0) == Unload("fraud-000000")


def test_without_leases_nothing_is_unloaded_before_the_grace_is_over() -> None:
    state = rollout(keep_previous=0)
    serve(state, 0)
    serve(state, 1)
    state.observe_leases(None, 0)
    assert state.server_action("a", 100) is None
    state.observe_leases([], 100)
    assert state.server_action("a", 100 + GRACE_S - 1) is None
    assert state.server_action("a", 100 + GRACE_S) == Unload("fraud-000000")


def test_models_of_others_are_left_alone() -> None:
    state = rollout(keep_previous=0)
    serve(state, 5)
    state.observe_leases([Lease(1, frozenset())], 0)
    others = frozenset({"fraud-000005", "fraud-demo-000001", "fraudulent", "other-000001", "fraud-000009"})
    state.observe("a", others | {"fraud-000004"})
    assert state.server_action("a", 0) == Unload("fraud-000004")
    state.unloaded("a", "fraud-000004")
    assert state.server_action("a", 0) is None


def test_what_was_rolled_back_is_unloaded_also_after_a_restart() -> None:
    state = rollout(keep_previous=0)
    serve(state, 5)
    assert state.table is not None
    table = model_pb2.RouteTable.FromString(state.table.SerializeToString())
    table.withdrawn.append("000007")
    state = rollout(keep_previous=0)
    state.restore(table)
    there = frozenset({"fraud-000005", "fraud-000007", "fraud-000009"})
    state.observe("a", there)
    state.passed("a", version(5))
    state.observe_leases([Lease(table.epoch, frozenset({"000007"}))], 0)
    assert state.server_action("a", 0) is None
    state.observe_leases([Lease(table.epoch, frozenset())], 0)
    assert state.server_action("a", 0) == Unload("fraud-000007")
    state.unloaded("a", "fraud-000007")
    assert state.server_action("a", 0) is None


class AnyOrder(RuleBasedStateMachine):
    """Two servers that come and go, gateways that lag, a learner that is replaced, bad versions, restarts."""

    urls = ("a", "b")

    def __init__(self) -> None:
        super().__init__()
        self.log: list[model_pb2.ModelVersion] = []
        self.commands: list[route_pb2.RouteCommand] = []
        self.tables: list[model_pb2.RouteTable] = []
        self.loaded: dict[str, set[str]] = {url: set() for url in self.urls}
        self.up = dict.fromkeys(self.urls, True)
        self.gateways: dict[int, int] = {}
        self.read: dict[int, int] = {}
        self.bad: set[str] = set()
        self.learner_epoch = 1
        self.now = 0.0

    @initialize()
    def start(self) -> None:
        self.read = {}
        self.state = Rollout("fraud", self.urls, keep_previous=1, lease_grace_s=GRACE_S)
        if self.tables:
            self.state.restore(self.tables[-1])
        for model in self.log:
            self.state.announce(model)
        for offset, command in enumerate(self.commands):
            self.state.give(offset, command)

    @rule(action=st.sampled_from(("freeze", "unfreeze", "rollback")))
    def give(self, action: str) -> None:
        command = route_pb2.RouteCommand(command_id=str(len(self.commands)), by="anna")
        getattr(command, action).SetInParent()
        self.state.give(len(self.commands), command)
        self.commands.append(command)

    @rule()
    def restart(self) -> None:
        self.start()

    @rule(bad=st.booleans(), replaced=st.booleans())
    def announce(self, bad: bool, replaced: bool) -> None:
        self.learner_epoch += replaced
        model = version(len(self.log), learner_epoch=self.learner_epoch)
        self.log.append(model)
        if bad:
            self.bad.add(model.version)
        self.state.announce(model)

    @rule(lag=st.integers(1, 3))
    def announce_by_a_zombie(self, lag: int) -> None:
        if self.learner_epoch - lag < 1:
            return
        model = version(len(self.log), learner_epoch=self.learner_epoch - lag)
        if all(one.learner_epoch < self.learner_epoch for one in self.log):
            return
        self.log.append(model)
        assert self.state.announce(model) is Announcement.ZOMBIE

    @rule(url=st.sampled_from(urls))
    def kill(self, url: str) -> None:
        self.up[url] = False
        self.loaded[url] = set()

    @rule(url=st.sampled_from(urls))
    def come_back(self, url: str) -> None:
        self.up[url] = True

    @rule(url=st.sampled_from(urls))
    def look(self, url: str) -> None:
        ready = frozenset(f"fraud-{one}" for one in self.loaded[url])
        self.state.observe(url, ready if self.up[url] else None)

    @rule(url=st.sampled_from(urls))
    def act(self, url: str) -> None:
        self.now += 10
        if not self.read:
            # Leases are read far more often than the grace is long: a gateway that is there is not overlooked for it.
            self.read_leases()
        action = self.state.server_action(url, self.now)
        if isinstance(action, Unload):
            name = action.triton_model.removeprefix("fraud-")
            live = [self.tables[epoch - 1] for epoch in self.gateways.values() if epoch]
            for table in live + self.tables[-1:]:
                assert name not in self._named(table), "a model in use was unloaded"
            self.loaded[url].discard(name)
            self.state.unloaded(url, action.triton_model)
        elif isinstance(action, Load):
            name = action.model.version
            if not self.up[url]:
                self.state.postpone(url, name, self.now)
            elif name in self.bad:
                self.loaded[url].add(name)
                self.state.fail(action.model)
            else:
                self.loaded[url].add(name)
                self.state.passed(url, action.model)

    @rule()
    def publish(self) -> None:
        table = self.state.next_table(1)
        if table is None:
            return
        self.state.restore(table)
        if self.tables and table.epoch == self.tables[-1].epoch:
            before = self.tables[-1]
            assert table.champion == before.champion
            if table.next_command == before.next_command:
                assert table.adopted
                assert not before.adopted
                # As they were read: one that has left since is no matter.
                assert set(self.read.values()) == {table.epoch}
            else:
                # A command that changes nothing of what answers.
                assert table.next_command == before.next_command + 1
                assert table.adopted == before.adopted
            self.tables[-1] = table
            return
        assert not table.adopted
        if self.tables:
            before = self.tables[-1]
            assert table.epoch == before.epoch + 1
            newer = order_of(table.champion.model) > order_of(before.champion.model)
            by_itself = table.changes[-1].kind == route_pb2.ROUTE_CHANGE_KIND_REFRESH
            assert newer == by_itself
            assert not (by_itself and before.HasField("frozen")), "a refresh while refreshes are frozen"
            assert not (by_itself and table.champion.model.version in before.withdrawn), (
                "what was rolled back came back"
            )
            assert table.next_command == before.next_command + (not by_itself)
        self.tables.append(table)

    @rule(turns=st.integers(1, 4))
    def go_on(self, turns: int) -> None:
        """All of it in turn: most of what there is to find lies behind a few tables."""
        for _ in range(turns):
            for url in self.urls:
                self.look(url)
                self.act(url)
            self.publish()

    @rule(bad=st.booleans())
    def announce_and_go_on(self, bad: bool) -> None:
        self.announce(bad, replaced=False)
        self.go_on(3)

    @rule(gateway=st.integers(0, 1))
    def adopt(self, gateway: int) -> None:
        if self.tables:
            self.gateways[gateway] = self.tables[-1].epoch

    @rule(gateway=st.integers(0, 1))
    def leave(self, gateway: int) -> None:
        self.gateways.pop(gateway, None)

    @rule()
    def read_leases(self) -> None:
        self.read = dict(self.gateways)
        leases = [Lease(epoch, self._named(self.tables[epoch - 1])) for epoch in self.gateways.values()]
        self.state.observe_leases(leases, self.now)

    @invariant()
    def never_a_bad_version(self) -> None:
        for table in self.tables:
            assert not self._named(table) & self.bad

    @staticmethod
    def _named(table: model_pb2.RouteTable) -> frozenset[str]:
        return frozenset(one.model.version for one in (table.champion, *table.previous))

    def teardown(self) -> None:
        """In the end the newest good version of the newest learner is served everywhere."""
        if not self.log:
            return
        self.give("unfreeze")
        for url in self.urls:
            self.come_back(url)
        self.read_leases()
        for _ in range(len(self.log) * 4 + 2 * len(self.commands) + 10):
            for url in self.urls:
                self.look(url)
                self.act(url)
            self.publish()
        epoch = max(model.learner_epoch for model in self.log)
        good = [one for one in self.log if one.version not in self.bad and one.learner_epoch == epoch]
        if not good:
            return
        withdrawn = set(self.tables[-1].withdrawn) if self.tables else set()
        good = [one for one in good if one.version not in withdrawn]
        if not good:
            return
        newest = max(good, key=order_of)
        assert self.tables[-1].champion.model == newest
        for url in self.urls:
            assert self._named(self.tables[-1]) <= self.loaded[url]


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
