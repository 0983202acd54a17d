"""When the event loop takes in rows rather than work on the next batch."""

from __future__ import annotations

import pytest

from headrace.gateway.loop_rest import INTAKE_SHARE, LONGEST_INTAKE_S, LONGEST_S, LOOK_S, LoopRest


class Loop:
    """A loop whose thread runs or sleeps as it is told."""

    def __init__(self, share: float = 0.0) -> None:
        self.now = 0.0
        self.wanted = 0.0
        self.rest = LoopRest(lambda: share, lambda: self.wanted)

    def works(self, seconds: float) -> None:
        self.now += seconds
        self.wanted += seconds

    def sleeps(self, seconds: float) -> None:
        self.now += seconds

    def may_begin(self, *, full: bool = True) -> bool:
        return self.rest.until(self.now, full=full) <= self.now


def test_a_full_batch_waits_while_the_loop_has_something_to_take_in() -> None:
    loop = Loop()
    loop.rest.ended(loop.now, 0.050)
    for _ in range(10):
        assert not loop.may_begin()
        loop.works(LOOK_S)
    assert loop.now < INTAKE_SHARE * 0.050
    assert not loop.may_begin()
    # It had time for more, and nothing came.
    loop.works(LOOK_S / 2)
    loop.sleeps(LOOK_S / 2)
    assert loop.may_begin()
    # And stays so until the next batch has ended.
    loop.works(LOOK_S)
    assert loop.may_begin()


def test_it_waits_for_a_share_of_what_the_last_batch_took() -> None:
    loop = Loop()
    loop.rest.ended(loop.now, 0.020)
    while not loop.may_begin():
        loop.works(LOOK_S)
    assert loop.now == pytest.approx(INTAKE_SHARE * 0.020)
    loop.rest.ended(loop.now, 5.0)
    began = loop.now
    while not loop.may_begin():
        loop.works(LOOK_S)
    assert loop.now - began == pytest.approx(LONGEST_INTAKE_S, abs=1.5 * LOOK_S)


def test_asked_too_early_it_says_when_to_ask_again() -> None:
    loop = Loop()
    loop.rest.ended(loop.now, 0.050)
    loop.sleeps(LOOK_S / 4)
    assert loop.rest.until(loop.now, full=True) == pytest.approx(LOOK_S)


def test_a_batch_that_is_not_full_gathers_for_a_share_of_the_last_one() -> None:
    loop = Loop(share=2.0)
    loop.rest.ended(loop.now, 0.004)
    assert loop.rest.until(loop.now, full=False) == pytest.approx(0.008)
    assert loop.rest.waited(0.007)
    assert not loop.rest.waited(0.009)
    loop.rest.ended(loop.now, 1.0)
    assert loop.rest.until(loop.now, full=False) == pytest.approx(LONGEST_S)


def test_without_the_threads_time_a_full_batch_waits_for_nothing() -> None:
    rest = LoopRest(lambda: 1.0)
    rest.ended(1.0, 0.050)
    assert rest.until(1.0, full=True) == 1.0
