"""A stack of its own for tests that break one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local import Layout, Stack
from tests.ports import free_ports


@contextmanager
def private_stack() -> Iterator[Stack]:
    """A stack beside all others, its infrastructure up; nothing is left of it in the end."""
    directory = Path(tempfile.mkdtemp(prefix="private-stack-"))
    try:
        stack = Stack(Layout(run=directory / "local", keys=directory / "keys"), free_ports())
        try:
            stack.start_infrastructure()
            yield stack
        finally:
            stack.stop()
    finally:
        shutil.rmtree(directory)
