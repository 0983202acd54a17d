from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.triton_balancing import Balancer, BalancingPolicy, Member, Rest, RetryBudget
from headrace.gateway.triton_errors import ModelMismatchError, ModelNotLoadedError, TritonError

POLICY = BalancingPolicy(rest_s=1.0, longest_rest_s=8.0, settled_s=10.0, slow_calls=4)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def balancer_of(count: int, clock: Clock) -> Balancer:
    return Balancer([f"server-{number}" for number in range(count)], POLICY, clock)


def chosen(balancer: Balancer, *without: Member, model: str = "m") -> Member:
    member = balancer.choose(model, without)
    assert member is not None
    return member


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=6))
def test_the_server_with_the_fewest_outstanding_rows_is_chosen(rows: list[int]) -> None:
    balancer = balancer_of(len(rows), Clock())
    for member, outstanding in zip(balancer.members, rows, strict=True):
        member.outstanding_rows = outstanding
    assert chosen(balancer).outstanding_rows == min(rows)


def test_servers_with_as_many_take_turns(clock: Clock) -> None:
    balancer = balancer_of(3, clock)
    taken = Counter(chosen(balancer).name for _ in range(300))
    assert set(taken.values()) == {100}


def test_a_server_that_was_tried_is_not_chosen_again(clock: Clock) -> None:
    balancer = balancer_of(2, clock)
    first = chosen(balancer)
    assert chosen(balancer, first) is not first
    assert balancer.choose("m", balancer.members) is None


def test_an_ejected_server_gets_nothing_until_it_is_back(clock: Clock) -> None:
    balancer = balancer_of(2, clock)
    bad, good = balancer.members
    balancer.model(bad, "m")
    balancer.eject(bad, "away")
    assert {chosen(balancer) for _ in range(4)} == {good}
    # Time alone does not bring it back: a trial call does.
    clock.now += 100
    assert bad.rest.is_due()
    assert {chosen(balancer) for _ in range(4)} == {good}
    balancer.back(bad)
    assert {chosen(balancer) for _ in range(4)} == {bad, good}
    # What was known of its models is not: they are checked again.
    assert not bad.models


def test_rests_grow_with_each_failure_up_to_the_longest_and_are_short_again_after_a_quiet_time(clock: Clock) -> None:
    rest = Rest(POLICY, clock)
    rests = []
    for _ in range(5):
        rest.begin()
        rests.append(rest.due - clock.now)
        clock.now = rest.due
        rest.end()
    assert rests == [1, 2, 4, 8, 8]
    clock.now += POLICY.settled_s
    rest.begin()
    assert rest.due - clock.now == 1


def test_a_failed_trial_makes_the_rest_longer(clock: Clock) -> None:
    rest = Rest(POLICY, clock)
    rest.begin()
    clock.now += 1000
    assert rest.is_due()
    rest.begin()
    assert rest.due - clock.now == 2
    assert not rest.is_due()


def test_a_missed_timeout_ejects_at_once_and_missed_deadlines_after_some_in_a_row(clock: Clock) -> None:
    balancer = balancer_of(1, clock)
    (member,) = balancer.members
    assert balancer.timed_out(member, whole=True)
    balancer.back(member)
    assert not balancer.timed_out(member, whole=False)
    assert not balancer.timed_out(member, whole=False)
    balancer.answered(member, balancer.model(member, "m"), 0.001)
    assert [balancer.timed_out(member, whole=False) for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("fault", [ModelNotLoadedError("gone"), ModelMismatchError("another")])
def test_a_model_that_is_missing_or_wrong_rests_on_that_server_alone(clock: Clock, fault: TritonError) -> None:
    balancer = balancer_of(2, clock)
    bad, good = balancer.members
    assert balancer.model_failed(balancer.model(bad, "m"), fault, at_once=True)
    # Others that failed at the same time do not make the rest longer.
    assert not balancer.model_failed(balancer.model(bad, "m"), fault, at_once=True)
    assert {chosen(balancer) for _ in range(4)} == {good}
    assert {chosen(balancer, model="other") for _ in range(4)} == {bad, good}
    assert balancer.faults("m") == [fault]
    assert balancer.faults("other") == []


def test_a_model_rests_after_some_errors_in_a_row(clock: Clock) -> None:
    balancer = balancer_of(1, clock)
    (member,) = balancer.members
    known = balancer.model(member, "m")
    error = TritonError("it does not run")
    for _ in range(POLICY.errors_in_a_row - 1):
        assert not balancer.model_failed(known, error, at_once=False)
    balancer.answered(member, known, 0.001)
    for _ in range(POLICY.errors_in_a_row - 1):
        assert not balancer.model_failed(known, error, at_once=False)
    assert balancer.model_failed(known, error, at_once=False)
    assert balancer.choose("m") is None
    assert not member.rest.resting


def answers(balancer: Balancer, member: Member, seconds: float, count: int) -> bool:
    return sum(balancer.answered(member, balancer.model(member, "m"), seconds) for _ in range(count)) > 0


def test_a_server_much_slower_than_the_others_should_rest(clock: Clock) -> None:
    balancer = balancer_of(3, clock)
    slow, *others = balancer.members
    for member in others:
        assert not answers(balancer, member, 0.002, 8)
    assert answers(balancer, slow, 0.2, 8)


@pytest.mark.parametrize(("usual", "seconds"), [(0.002, 0.015), (0.1, 0.3)])
def test_a_server_somewhat_slower_than_the_others_should_not(clock: Clock, usual: float, seconds: float) -> None:
    balancer = balancer_of(2, clock)
    slow, other = balancer.members
    answers(balancer, other, usual, 8)
    assert not answers(balancer, slow, seconds, 64)


def test_a_server_alone_is_never_too_slow(clock: Clock) -> None:
    balancer = balancer_of(2, clock)
    slow, other = balancer.members
    answers(balancer, other, 0.002, 8)
    balancer.eject(other, "away")
    assert not answers(balancer, slow, 1.0, 64)
    assert not balancer.others_serve(slow)


def test_models_that_nobody_asks_for_are_forgotten(clock: Clock) -> None:
    balancer = balancer_of(1, clock)
    (member,) = balancer.members
    balancer.model(member, "old")
    clock.now += 30
    balancer.model(member, "new")
    clock.now += 31
    balancer.forget_unused(60)
    assert set(member.models) == {"new"}


def test_retries_are_a_share_of_the_calls_and_some_at_once() -> None:
    budget = RetryBudget(ratio=0.1, burst=5)
    assert sum(budget.take() for _ in range(100)) == 5
    # Every call of an outage would like a retry.
    granted = 0
    for _ in range(1000):
        budget.called()
        granted += budget.take()
    assert 95 <= granted <= 100
