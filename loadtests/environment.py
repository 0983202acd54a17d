"""The environment of the controls' libraries, `.run/bench/venv`: `python -m loadtests.environment` makes it.

They are no dependencies of the project, and want other versions of some. `requirements/bench.txt` locks them.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from deploy.local.layout import ROOT

VENV = ROOT / ".run" / "bench" / "venv"
LOCK = ROOT / "requirements" / "bench.txt"


class NotInstalled(Exception):
    """The controls are not installed; the message says how they are."""


def control_python() -> Path:
    """The interpreter that has the controls' libraries.

    Raises:
        NotInstalled: they are not there, or not what the lock says.
    """
    if not _stamp().exists():
        raise NotInstalled(
            "the controls' libraries are not installed: run `python -m loadtests.environment`, "
            "or leave the controls out with --no-controls"
        )
    return VENV / "bin" / "python"


def install() -> None:
    """Make the environment where it is not what the lock says."""
    if _stamp().exists():
        return
    print("installing the controls' libraries (about 0.8 GB on disk) into .run/bench/venv", flush=True)
    # Not the one that this interpreter runs in: a virtual environment's own base is what a new one is made from.
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    subprocess.run([*pip, "install", "--require-hashes", "--requirement", str(LOCK)], check=True)
    _stamp().touch()


def _stamp() -> Path:
    return VENV / f"installed-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]}"


if __name__ == "__main__":
    install()
