"""A Redis that starts again from what its files were some time ago, as after a power cut."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

from deploy.local import Stack
from tests.integration.features.deployment import POLL_S

ENDED_S = 20.0


def keep_files(stack: Stack) -> Path:
    """Copy the append-only file of a Redis that runs: what is copied is a beginning of it.

    Where it is rewritten meanwhile, which the manifest shows, the copy is begun again.
    """
    files, copy = stack.layout.redis / "appendonlydir", stack.layout.redis / "some-time-ago"
    manifest = files / "appendonly.aof.manifest"
    before = b""
    while not before or manifest.read_bytes() != before:
        shutil.rmtree(copy, ignore_errors=True)
        before = manifest.read_bytes()
        shutil.copytree(files, copy)
    return copy


async def restart_from(stack: Stack, copy: Path) -> int:
    """Kill Redis, and let the supervisor start it on the older files; the process id that it had."""
    killed = stack.process_id("redis")
    supervisor = int(stack.layout.supervisor_pid.read_text())
    os.kill(supervisor, signal.SIGSTOP)  # or it would start Redis on the newer files
    try:
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(ENDED_S):
            while not _has_ended(killed):  # noqa: ASYNC110 (nothing tells of it)
                await asyncio.sleep(POLL_S)
        files = stack.layout.redis / "appendonlydir"
        await asyncio.to_thread(shutil.rmtree, files)
        await asyncio.to_thread(copy.rename, files)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    return killed


def _has_ended(process_id: int) -> bool:
    # Its parent is stopped, so it stays as a zombie, which has closed its files.
    return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
