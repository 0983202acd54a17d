"""A function is what its source says, with everything plain that it refers to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headrace.pipeline import DefinitionError
from headrace.pipeline.sources import describe_function

LIMIT = 5
NAMES = ("a", ("b", 2))


def helper(value: float) -> float:
    return value * LIMIT


def uses_a_constant(value: float) -> bool:
    # A comment changes nothing.
    return value > LIMIT


def uses_a_helper(value: float) -> float:
    return max(helper(one) for one in (value, 1.0))


def uses_names(value: str) -> bool:
    return value in NAMES


def above(limit: float) -> Callable[[float], bool]:
    def function(value: float) -> bool:
        return value > limit

    return function


def within(limits: dict[str, float]) -> Callable[[float], bool]:
    def function(value: float) -> bool:
        return value > limits["x"]

    return function


def calls_itself(value: int) -> int:
    return value and calls_itself(value - 1)


def described(function: Callable[..., Any]) -> str:
    return describe_function(function, "feature 'x': where")


def test_constants_and_helpers_of_the_module_belong_to_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    functions: tuple[Callable[..., Any], ...] = (uses_a_constant, uses_a_helper, uses_names)
    before = [described(function) for function in functions]
    assert before[0] == "def uses_a_constant(value: float) -> bool:\n    return value > LIMIT\nLIMIT = 5"
    assert "def helper" in before[1]
    assert "NAMES = ('a', ('b', 2))" in before[2]
    monkeypatch.setitem(globals(), "LIMIT", 6)
    assert [described(function) == text for function, text in zip(functions, before, strict=True)] == [
        False,
        False,
        True,
    ]


def test_values_of_the_function_around_it_belong_to_it() -> None:
    assert described(above(1)) == described(above(1)) != described(above(2))


def test_a_function_that_calls_itself_is_described_once() -> None:
    assert described(calls_itself).count("def calls_itself") == 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            within({"x": 1.0}),
            "where uses 'limits' of the function around it, a dict; allowed are numbers, texts and tup",
        ),
        (len, "where must be a plain function defined in a file"),
    ],
)
def test_what_cannot_be_told_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        described(function)
