"""The stack that a demonstration runs on: local processes, or docker compose. Both live in the clone's `deploy`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

from headrace.demo.errors import DemoError

StackName = Literal["local", "compose"]


class Stack(Protocol):
    """What the demonstration needs of a stack."""

    def start_infrastructure(self) -> object:
        """Start what does not run, and wait until it is ready."""

    def start_services(self, environment: Mapping[str, str]) -> None:
        """Start the six services afresh with these settings, and wait until they are ready."""

    def stop(self) -> object:
        """Stop everything."""


def find_stack(name: StackName, say: Callable[[str], None]) -> tuple[Stack, type[Exception]]:
    """The stack of that name, and the exception by which it says what a person must do.

    Args:
        name: "local" or "compose".
        say: told of each step.

    Raises:
        DemoError: the working directory is not a clone of the project.
    """
    module = {"local": "deploy.local", "compose": "deploy.docker"}[name]
    if not Path("deploy").is_dir():
        raise DemoError(f"there is no folder deploy here ({Path.cwd()}); run this in a clone of the project")
    # The console script's path does not have the working directory; `deploy` is no part of the distribution.
    sys.path.insert(0, str(Path.cwd()))
    found = importlib.import_module(module)
    return found.Stack(say=say), found.StackError
