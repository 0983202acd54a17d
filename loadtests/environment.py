"""Environments of other programs, under `.run/bench`: `python -m loadtests.environment [NAME…]` makes them.

They are no dependencies of the project, and want other versions of some. `requirements/<name>.txt` locks each: "bench"
has what the feature engine is compared with, "bench-mlserver" what the gateway is; "mlflow-server" has the server that
the registry is tested against.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from deploy.local.layout import ROOT

BENCH = "bench"
MLFLOW = "mlflow-server"
DIRECTORIES = {BENCH: "venv", "bench-mlserver": "mlserver", MLFLOW: "mlflow"}
SIZES = {BENCH: "0.8 GB", "bench-mlserver": "0.4 GB", MLFLOW: "0.9 GB"}


class NotInstalled(Exception):
    """An environment is not installed; the message says how it is."""


def control_python(name: str = BENCH) -> Path:
    """The interpreter of an environment.

    Args:
        name: of the lock.

    Raises:
        NotInstalled: they are not there, or not what the lock says.
    """
    if not _stamp(name).exists():
        raise NotInstalled(
            f"the libraries of {name} are not installed: run `python -m loadtests.environment {name}`"
            + ("" if name == MLFLOW else ", or leave the controls out with --no-controls")
        )
    return _directory(name) / "bin" / "python"


def install(name: str = BENCH) -> None:
    """Make the environment where it is not what the lock says.

    Args:
        name: of the lock.
    """
    if _stamp(name).exists():
        return
    directory = _directory(name)
    where = directory.relative_to(ROOT)
    print(f"installing the libraries of {name} (about {SIZES[name]} on disk) into {where}", flush=True)
    # Not the one that this interpreter runs in: a virtual environment's own base is what a new one is made from.
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    subprocess.run([*pip, "install", "--require-hashes", "--requirement", str(_lock(name))], check=True)
    _stamp(name).touch()


def _directory(name: str) -> Path:
    return ROOT / ".run" / "bench" / DIRECTORIES[name]


def _lock(name: str) -> Path:
    return ROOT / "requirements" / f"{name}.txt"


def _stamp(name: str) -> Path:
    return _directory(name) / f"installed-{hashlib.sha256(_lock(name).read_bytes()).hexdigest()[:16]}"


if __name__ == "__main__":
    for wanted in sys.argv[1:] or [BENCH]:
        try:
            install(wanted)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{wanted} cannot be installed: pip ended with {error.returncode}") from None
