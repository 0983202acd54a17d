"""What a user's function means, as text: its source and everything plain that it refers to, for fingerprints."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

from headrace.pipeline.errors import DefinitionError

_PLAIN = (bool, int, float, str, bytes, type(None))


def describe_function(function: Callable[..., Any], what: str) -> str:
    """The source of a function without comments and layout.

    Plain values that it takes from its module or from an enclosing function follow, and functions of its own module
    that it calls, so that a changed threshold or helper is a changed feature.

    Args:
        function: a plain function.
        what: what it is part of, for the error.

    Raises:
        DefinitionError: it has no source, or refers to a changeable value of an enclosing function, so a change to it
            could not be told.
    """
    parts: dict[str, str] = {}
    _describe(function, what, parts)
    (source, *more) = parts.values()
    return "\n".join([source, *more])


def _describe(function: Callable[..., Any], what: str, parts: dict[str, str]) -> None:
    if not isinstance(function, types.FunctionType):
        raise DefinitionError(f"{what} must be a plain function defined in a file")
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as error:
        raise DefinitionError(f"{what} must be a plain function defined in a file") from error
    parts[f"{function.__module__}.{function.__qualname__}"] = ast.unparse(tree)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if not _is_plain(cell.cell_contents):
            raise DefinitionError(
                f"{what} uses {name!r} of the function around it, a {type(cell.cell_contents).__name__}; allowed are "
                "numbers, texts and tuples of them"
            )
        parts[name] = f"{name} = {cell.cell_contents!r}"
    for name in sorted(set(_names(function.__code__))):
        value = function.__globals__.get(name)
        if isinstance(value, types.FunctionType) and value.__module__ == function.__module__:
            if f"{value.__module__}.{value.__qualname__}" not in parts:
                _describe(value, what, parts)
        elif name in function.__globals__ and _is_plain(value):
            parts[name] = f"{name} = {value!r}"


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _is_plain(value: object) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple | frozenset) and all(map(_is_plain, value)))
