"""What the stack is made of, fetched once into the cache: Kafka's jars, Triton, and Python for Triton's backend.

Each has a directory named after the lock file that describes it, so a new lock is a new directory and a warm start
only looks for the stamp that the finished download left. Everything is checked against committed SHA-256 hashes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.layout import Layout

Say = Callable[[str], None]

#: A download that has not ended after this many seconds has failed.
LONGEST_DOWNLOAD = 1800.0

_STAMP = "complete"


@dataclass(frozen=True)
class Downloads:
    """Where the fetched parts are.

    ``kafka_jars`` has the broker's class path; ``triton_site`` the unpacked Triton wheel; ``triton_python`` is the
    virtual environment that Triton's Python backend computes in.
    """

    kafka_jars: Path
    triton_site: Path
    triton_python: Path


def fetch(layout: Layout, say: Say) -> Downloads:
    """Fetch what is not in the cache yet, and say so before and while it happens.

    Raises
    ------
    StackError
        A download failed, or is not what its hash says; the message has the last lines of the tool that fetched it.
    """
    lock = layout.root / "deploy" / "local" / "kafka"
    requirements = layout.root / "requirements"
    return Downloads(
        kafka_jars=_part(
            layout, "kafka", [lock / "pom.xml", lock / "jars.sha256"], say, "Kafka 4.3.1 (Maven, 56 MB)", _kafka_jars
        ),
        triton_site=_part(
            layout, "triton", [requirements / "tritonserver.txt"], say, "Triton (one wheel, 55 MB)", _triton_site
        ),
        triton_python=_part(
            layout,
            "triton-python",
            [requirements / "triton.txt"],
            say,
            "Python environment of Triton's backend (wheels, 50 MB)",
            _triton_python,
        ),
    )


def java() -> str:
    """The Java to run the broker with: that of ``JAVA_HOME``, else the first on the path.

    Raises
    ------
    StackError
        There is none.
    """
    home = os.environ.get("JAVA_HOME")
    program = shutil.which(f"{home}/bin/java") if home else shutil.which("java")
    if program is None:
        raise StackError(f"no java{f' in JAVA_HOME={home}' if home else ''}: run deploy/local/install.sh")
    return program


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for another process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _part(
    layout: Layout, name: str, locks: list[Path], say: Say, title: str, make: Callable[[Layout, Path, Say], None]
) -> Path:
    digest = hashlib.sha256(sysconfig.get_python_version().encode())
    for lock in locks:
        if not lock.exists():
            raise StackError(f"{lock} is missing: it says which {title} to fetch")
        digest.update(lock.read_bytes())
    directory = layout.cache / f"{name}-{digest.hexdigest()[:12]}"
    stamp = directory / _STAMP
    if stamp.exists():
        return directory
    with alone(layout.cache / f"{name}.lock"):
        if stamp.exists():
            return directory
        say(f"fetching {title} into {_relative(directory, layout)}")
        started = time.monotonic()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        make(layout, directory, say)
        stamp.touch()
        say(f"fetched {title} in {time.monotonic() - started:.0f} s")
    return directory


def _relative(path: Path, layout: Layout) -> str:
    return str(path.relative_to(layout.root)) if path.is_relative_to(layout.root) else str(path)


def _kafka_jars(layout: Layout, directory: Path, say: Say) -> None:
    if shutil.which("mvn") is None:
        raise StackError("no mvn: run deploy/local/install.sh")
    lock = layout.root / "deploy" / "local" / "kafka"
    wanted = {}
    for line in (lock / "jars.sha256").read_text().splitlines():
        digest, _, name = line.partition("  ")
        wanted[name] = digest

    fetched = 0

    def progress(line: str) -> None:
        nonlocal fetched
        if line.startswith("[INFO] Downloaded") and ".jar " in line:
            fetched += 1
            if fetched % 20 == 0:
                say(f"  {fetched} jars so far (the build plugin's own among them)")

    _run(
        # `--batch-mode` without the flag that hides transfers: their lines are what the progress is counted from.
        ["mvn", "--batch-mode", "--strict-checksums", f"--file={lock / 'pom.xml'}", "dependency:copy-dependencies"]
        + [f"-DoutputDirectory={directory}"],
        "fetching Kafka",
        progress,
    )
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in directory.glob("*.jar")}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise StackError(f"Kafka's jars are not those of deploy/local/kafka/jars.sha256: {', '.join(wrong[:5])}")


def _triton_site(layout: Layout, directory: Path, say: Say) -> None:
    _pip([sys.executable, "-m", "pip"], layout.root / "requirements" / "tritonserver.txt", ["--target", str(directory)])
    server = directory / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    server.chmod(server.stat().st_mode | 0o111)


def _triton_python(layout: Layout, directory: Path, say: Say) -> None:
    _run([sys.executable, "-m", "venv", str(directory)], "making the Python environment of Triton")
    _pip([str(directory / "bin" / "python"), "-m", "pip"], layout.root / "requirements" / "triton.txt", [])


def _pip(pip: list[str], lock: Path, options: list[str]) -> None:
    _run(
        [*pip, "install", "--no-deps", "--require-hashes", "--disable-pip-version-check", "--no-input"]
        + ["--only-binary=:all:", *options, "--requirement", str(lock)],
        f"installing {lock.name}",
    )


def _run(command: list[str], doing: str, on_line: Callable[[str], None] = lambda line: None) -> None:
    """Run to the end, hand each line of output on, and raise with the last lines where it fails."""
    last: deque[str] = deque(maxlen=15)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        limit = threading.Timer(LONGEST_DOWNLOAD, process.kill)
        limit.start()
        try:
            for line in process.stdout:
                last.append(line.rstrip())
                on_line(line.rstrip())
        except BaseException:
            process.kill()
            raise
        finally:
            limit.cancel()
    if process.returncode:
        raise StackError("\n".join([f"{doing} failed (status {process.returncode}):", *last]))
