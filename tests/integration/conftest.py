"""Every integration test runs against the real Kafka, Redis and Triton of the stack without Docker.

They are started before the first test where they do not run, and stopped after the last one where this session
started them; a stack that was up is left as it is. What cannot start fails the run, never skips a test.
"""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.local import Stack, StackError

_HERE = Path(__file__).parent
_STARTED = "started_stack"
_started_here = pytest.StashKey[Stack]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the stack here, and not in a fixture: the first start downloads, which no test's time limit allows for."""
    if session.config.option.collectonly or not any(_HERE in item.path.parents for item in session.items):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    stack = Stack(say=reporter.write_line) if reporter else Stack()
    try:
        with _one_at_a_time():
            started = stack.start_infrastructure()
    except StackError as error:
        pytest.exit(f"the integration tests need the local stack, which does not start:\n{error}", returncode=1)
    if started and _is_worker(session.config):
        session.config.workeroutput[_STARTED] = True  # type: ignore[attr-defined]
    elif started:
        session.config.stash[_started_here] = stack


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of several has ended: if it started the stack, this session did."""
    if getattr(node, "workeroutput", {}).get(_STARTED):
        node.config.stash[_started_here] = Stack()


def pytest_sessionfinish(session: pytest.Session) -> None:
    stack = session.config.stash.get(_started_here, None)
    if stack is not None:
        stack.stop()


def _is_worker(config: pytest.Config) -> bool:
    """Whether this is one of several processes that share the tests."""
    return hasattr(config, "workerinput")


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    lock = _HERE.parents[1] / ".run" / "tests.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def stack() -> Stack:
    """The stack that the tests run against; its infrastructure is up and ready."""
    return Stack()


@pytest.fixture(scope="session")
def kafka_bootstrap(stack: Stack) -> str:
    """The broker, as ``host:port``."""
    return f"127.0.0.1:{stack.ports.kafka}"


@pytest.fixture(scope="session")
def redis_url(stack: Stack) -> str:
    """The Redis server and database 0."""
    return f"redis://127.0.0.1:{stack.ports.redis}/0"


@pytest.fixture(scope="session")
def triton_url(stack: Stack) -> str:
    """Triton's gRPC endpoint, as ``host:port``."""
    return f"127.0.0.1:{stack.ports.triton_grpc}"


@pytest.fixture
def namespace() -> str:
    """A namespace that nothing else has used: what a test writes under it is its own."""
    return f"test-{uuid.uuid4().hex[:12]}"
