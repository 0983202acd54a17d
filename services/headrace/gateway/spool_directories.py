"""Where the processes of a gateway keep their spools, and which of them are in use."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK_FILE = "lock"


def spools_of(state_dir: Path, deployed: str) -> Path:
    """Directory of the spools of a deployed pipeline: in it is one for each process, by its name."""
    return state_dir / "gateway" / deployed


def is_name_in_use(state_dir: Path, name: str) -> bool:
    """Whether a process of that name uses a spool, of whatever deployed pipeline."""
    return any(is_in_use(found) for found in (state_dir / "gateway").glob(f"*/{name}"))


def is_in_use(spool: Path) -> bool:
    """Whether a process has the lock of a spool."""
    try:
        lock = os.open(spool / LOCK_FILE, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
