"""Make the virtual environment `.venv`: `packages` installs what `requirements/dev.txt` locks, `headrace` this project.

Run by `make setup` with Debian's python3, so it needs the standard library alone. What is installed already is kept;
downloaded files stay in pip's own cache. It prints what it is about to do, how far it is, and, where pip fails, pip's
last lines without the addresses in them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements" / "dev.txt"

_SEEN = re.compile(r"\s*(?:Collecting|Requirement already satisfied:) ([A-Za-z0-9._-]+)")
_ADDRESS = re.compile(r"[a-z+]+://\S+")
_STEP = 20


class InstallError(Exception):
    """The environment could not be made; the message has the reason."""


class Progress:
    """One line that counts up on a terminal, a line every 20 packages elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._terminal = sys.stdout.isatty()
        self._shown = 0

    def show(self, doing: str, done: int, name: str = "") -> None:
        done = min(done, self._total)
        if self._terminal:
            print(f"\r\033[K  {doing} {done}/{self._total} {name}", end="", flush=True)
        elif done // _STEP != self._shown // _STEP or (done == self._total != self._shown):
            print(f"  {doing} {done}/{self._total}", flush=True)
        self._shown = done

    def close(self) -> None:
        if self._terminal and self._shown:
            print()
        self._shown = 0


def locked(lock: Path) -> dict[str, str]:
    """The version of each package in a lock file, by the package's normalised name."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", lock.read_text(), re.MULTILINE)
    return {normalised(name): version for name, version in pins}


def normalised(name: str) -> str:
    """A package's name as `pip` compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(venv: Path) -> dict[str, str]:
    """The version of each package in a virtual environment, by its normalised name."""
    found = {}
    for information in venv.glob("lib/python3.*/site-packages/*.dist-info"):
        name, _, version = information.name.removesuffix(".dist-info").rpartition("-")
        found[normalised(name)] = version
    return found


def missing(wanted: dict[str, str], venv: Path) -> list[str]:
    """The packages of a lock that are not there, or in another version."""
    there = installed(venv)
    return [name for name, version in wanted.items() if there.get(name) != version]


def make_venv() -> None:
    """Make `.venv` where there is none that works."""
    if (VENV / "bin" / "pip").exists():
        return
    print(f"making the virtual environment {VENV.name}", flush=True)
    run([sys.executable, "-m", "venv", "--clear", str(VENV)], "making .venv")


def install_locked() -> None:
    """Install the packages of the lock, each checked against its hash."""
    wanted = locked(LOCK)
    absent = missing(wanted, VENV)
    if not absent:
        return
    print(f"installing {len(absent)} of {len(wanted)} Python packages (all together about 1.7 GB on disk)", flush=True)
    progress = Progress(len(wanted))
    seen: set[str] = set()
    ended = threading.Event()
    unpacking = threading.Thread(target=watch_unpacking, args=(progress, wanted, ended))

    def on_line(line: str) -> None:
        found = _SEEN.match(line)
        if found:
            seen.add(normalised(found[1]))
            progress.show("fetched", len(seen), found[1])
        elif line.startswith("Installing collected packages") and not unpacking.ident:
            progress.close()
            unpacking.start()

    try:
        install = [*pip(), "install", "--require-hashes", "--requirement", str(LOCK)]
        run(install, "installing requirements/dev.txt", on_line)
    finally:
        ended.set()
        if unpacking.ident:
            unpacking.join()
        progress.close()


def watch_unpacking(progress: Progress, wanted: dict[str, str], ended: threading.Event) -> None:
    """Count what has been unpacked, as pip does not say."""
    while not ended.wait(1.0):
        progress.show("unpacked", len(wanted) - len(missing(wanted, VENV)))
    progress.show("unpacked", len(wanted) - len(missing(wanted, VENV)))


def install_headrace() -> None:
    """Install this repository in place: its `headrace` command and its metadata."""
    run([*pip(), "install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)], "installing headrace")


def pip() -> list[str]:
    """The environment's own pip."""
    return [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color"]


def run(command: list[str], doing: str, on_line: Callable[[str], None] | None = None) -> None:
    """Run a command to its end and hand over each line that it prints.

    Raises
    ------
    InstallError
        It failed; the message has its last lines.
    """
    last: deque[str] = deque(maxlen=12)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as process:
        for line in process.stdout or ():
            last.append(line.rstrip())
            if on_line is not None:
                on_line(line)
    if process.returncode:
        raise InstallError("\n".join([f"{doing} failed:", *without_addresses(last)]))


def without_addresses(lines: Iterable[str]) -> list[str]:
    """The lines with every address in them left out."""
    return [_ADDRESS.sub("(address)", line) for line in lines]


def main(arguments: list[str]) -> int:
    """Do what is asked for, `packages` or `headrace`, and return the exit status."""
    started = time.monotonic()
    try:
        if arguments == ["packages"]:
            make_venv()
            install_locked()
        elif arguments == ["headrace"]:
            install_headrace()
        else:
            print("usage: install.py packages|headrace", file=sys.stderr)
            return 2
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{arguments[0]} installed in {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
