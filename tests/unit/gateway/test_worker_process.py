"""A process that ends with the one that started it."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """
import signal
from headrace.gateway.worker_process import end_with_parent
end_with_parent()
print("watching", flush=True)
signal.pause()
"""


def test_it_is_asked_to_end_when_its_parent_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"watching\n"
        assert process.poll() is None
        # As the system does for a process that ends, however it ends.
        process.stdin.close()
        assert process.wait(20) == -signal.SIGTERM
