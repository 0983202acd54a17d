"""End-to-end tests run on the stack without Docker, which is left as it was found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.local import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The stack with its infrastructure up; what cannot start fails the tests."""
    found = Stack()
    started = found.start_infrastructure()
    yield found
    found.stop_services()
    if started:
        found.stop()
