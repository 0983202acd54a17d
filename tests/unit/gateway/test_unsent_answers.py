"""Answers that callers do not take: counted by connection, forgotten when their calls end."""

from __future__ import annotations

import asyncio

import pytest

from headrace.gateway.errors import OverloadedError
from headrace.gateway.unsent_answers import SHARES, UnsentAnswers


async def test_a_connection_that_takes_nothing_gets_no_more() -> None:
    unsent = UnsentAnswers(100)
    one, other = unsent.of_this_call("a"), unsent.of_this_call("a")
    one.made(60)
    other.require()
    other.made(60)
    assert not one.allowed
    with pytest.raises(OverloadedError, match="wait for this caller"):
        one.require()
    assert unsent.allows("b")
    other.sent(30)
    one.require()
    other.end()
    one.end()
    assert unsent.rows == 0
    # What is made for a call that has ended is not counted.
    one.made(50)
    one.sent(50)
    assert unsent.rows == 0


async def test_in_all_too_many_bar_those_who_have_some() -> None:
    unsent = UnsentAnswers(100)
    held = [unsent.of_this_call(f"c{number}") for number in range(2 * SHARES)]
    for one in held:
        one.made(50)
    assert unsent.rows == SHARES * 100
    assert not held[0].allowed
    assert unsent.allows("honest")
    held[0].end()
    assert held[1].allowed


async def test_what_waits_is_forgotten_with_the_task_of_its_call() -> None:
    unsent = UnsentAnswers(100)
    taken = asyncio.Event()

    async def call() -> None:
        unsent.of_this_call("a").made(100)
        await taken.wait()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    assert not unsent.allows("a")
    taken.set()
    await task
    await asyncio.sleep(0)
    assert unsent.allows("a")
    assert unsent.rows == 0
