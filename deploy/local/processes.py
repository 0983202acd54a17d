"""The processes of this machine, as /proc shows them: who listens on a port, and what a stack left behind."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

#: Every process of a stack has this variable, with the stack's run directory: so nothing is ever found by its name.
MARKER = "LOCAL_STACK_DIRECTORY"

_LISTEN = "0A"


@dataclass(frozen=True)
class Process:
    """A process: its id, its process group, and its command line cut to one readable line."""

    id: int
    group: int
    command: str


def read_process(process_id: int) -> Process | None:
    """The process of this id, or None where it has ended (a zombie counts as ended)."""
    try:
        # The name in parentheses may hold anything, so the fields are counted from the last parenthesis.
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{process_id}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        threads = sum(1 for _ in Path(f"/proc/{process_id}/task").iterdir())
    except OSError:
        return None
    # Its first thread can be dead while others are still about to end, and until then its ports stay taken.
    if fields[0] in "ZX" and threads <= 1:
        return None
    command = command.strip()
    return Process(process_id, int(fields[2]), command if len(command) <= 100 else f"{command[:97]}...")


def marked_processes(run: Path) -> list[Process]:
    """Every living process that the stack with this run directory started, whoever its parent is now."""
    marker = b"\0%s=%s\0" % (MARKER.encode(), os.fsencode(run))
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = b"\0" + (entry / "environ").read_bytes() + b"\0"
        except OSError:
            continue
        if marker in environment and (process := read_process(int(entry.name))):
            found.append(process)
    return found


def end_processes(processes: list[Process], *, patience: float = 5.0) -> None:
    """Ask the processes to end, and kill those that have not after ``patience`` seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            try:
                os.kill(process.id, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + patience
        while processes and time.monotonic() < deadline:
            processes = [process for process in processes if read_process(process.id)]
            time.sleep(0.02)


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return inodes


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1 at this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Servers set this too: a connection that is only waiting out its end does not keep them from the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def port_holder(port: int) -> Process | None:
    """The process that listens on this port, or None where none is visible (another user's, for one)."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            for descriptor in (entry / "fd").iterdir():
                if str(descriptor.readlink()) in inodes:
                    return read_process(int(entry.name))
        except OSError:
            continue
    return None
