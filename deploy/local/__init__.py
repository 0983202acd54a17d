"""The stack without Docker: real Kafka, Redis and Triton, and the six services, as supervised local processes.

From a shell: ``python -m deploy.local up``, ``down``, ``status``, ``logs``. From Python: the functions here, which
work on the one stack of this repository, or :class:`Stack` for another one beside it. Every function raises
:class:`StackError` with a message for the user.
"""

from __future__ import annotations

from collections.abc import Mapping

from deploy.local.errors import StackError
from deploy.local.keys import signing_keys
from deploy.local.layout import Layout, Ports
from deploy.local.stack import ProgramStatus, Stack

__all__ = [
    "Layout",
    "Ports",
    "ProgramStatus",
    "Stack",
    "StackError",
    "process_id",
    "signing_keys",
    "start_infrastructure",
    "start_services",
    "status",
    "stop",
    "stop_services",
    "wait_ready",
]


def start_infrastructure() -> list[str]:
    """Start Kafka, Redis and Triton where they do not run and wait until they are ready; returns what was started."""
    return Stack().start_infrastructure()


def start_services(environment: Mapping[str, str]) -> None:
    """Stop the six services where they run, start them with these settings, and wait until they are ready."""
    Stack().start_services(environment)


def stop_services() -> None:
    """Stop the six services; the infrastructure goes on."""
    Stack().stop_services()


def stop() -> bool:
    """Stop everything; returns whether anything ran."""
    return Stack().stop()


def status() -> list[ProgramStatus]:
    """Every program with its state, process id, uptime, ports and whether it is ready."""
    return Stack().status()


def process_id(name: str) -> int:
    """The process id of a running program, ``kafka`` or ``gateway`` for example."""
    return Stack().process_id(name)


def wait_ready(name: str) -> None:
    """Wait until the program of this name is ready."""
    Stack().wait_ready(name)
