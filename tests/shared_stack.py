"""The shared stack for tests outside of `tests/integration`, which start it where nobody has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.local import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The stack's Kafka, Redis and Triton; stopped in the end where this run started them."""
    found = Stack()
    started = found.start_infrastructure()
    yield found
    if started:
        found.stop()
