"""The process supervisor of the stack: its configuration, its start and end, and calls to it."""

from __future__ import annotations

import contextlib
import getpass
import http.client
import os
import resource
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local.errors import StackError
from deploy.local.layout import Layout
from deploy.local.processes import MARKER, read_process

INFRASTRUCTURE = "infrastructure"
SERVICES = "services"

#: The lower ones are stopped last.
_PRIORITIES = {INFRASTRUCTURE: 10, SERVICES: 20}

#: A call to the supervisor that is not answered within this many seconds has failed. None of them waits for a program.
CALL_DEADLINE = 20.0


@dataclass(frozen=True)
class Program:
    """A program that the supervisor runs.

    ``ports`` are those it listens on, by what they are for; ``start_seconds`` is how long it must run before its end
    counts as a crash (restarted at once) and not as a failed start (tried again later and later);
    ``stop_seconds`` is how long it may take to end before it is killed.
    """

    name: str
    group: str
    command: Sequence[str]
    ports: Mapping[str, int]
    environment: Mapping[str, str] = field(default_factory=dict)
    start_seconds: int = 1
    start_retries: int = 10
    stop_seconds: int = 20

    @property
    def full_name(self) -> str:
        return f"{self.group}:{self.name}"


@dataclass(frozen=True)
class ProgramState:
    """What the supervisor says of a program.

    The state is by the supervisor's own name (``RUNNING``, ``BACKOFF``, …), the process id is 0 where there is none,
    the uptime is the seconds since the last start, and the problem a word on what went wrong.
    """

    name: str
    state: str
    process_id: int
    uptime: float
    problem: str


def render(layout: Layout, programs: Sequence[Program]) -> str:
    """The supervisor's configuration (``supervisord.conf``)."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    lines = [
        "[supervisord]",
        "nodaemon=true",
        f"user={getpass.getuser()}",
        f"minfds={files}",
        f"pidfile={_escape(layout.supervisor_pid)}",
        # Its own output is redirected to a file, in which it would only repeat itself.
        "logfile=/dev/null",
        "logfile_maxbytes=0",
        f"childlogdir={_escape(layout.logs)}",
        f"directory={_escape(layout.root)}",
        "",
        "[unix_http_server]",
        f"file={_escape(layout.supervisor_socket)}",
        "chmod=0700",
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for group in _PRIORITIES:
        lines += ["", *_group(layout, group, [program for program in programs if program.group == group])]
    return "\n".join(lines) + "\n"


def replaced(configuration: str, layout: Layout, group: str, programs: Sequence[Program]) -> str:
    """A configuration of :func:`render` with other programs in its last group, and with nothing else changed."""
    before = configuration.partition(f"\n[group:{group}]\n")[0]
    return "\n".join([before, *_group(layout, group, programs)]) + "\n"


def _group(layout: Layout, group: str, programs: Sequence[Program]) -> list[str]:
    lines = [f"[group:{group}]", f"programs={','.join(p.name for p in programs)}", f"priority={_PRIORITIES[group]}"]
    for program in programs:
        lines += ["", *_program(layout, program)]
    return lines


def _program(layout: Layout, program: Program) -> list[str]:
    environment = ",".join(f'{name}="{_escape(value)}"' for name, value in program.environment.items())
    return [
        f"[program:{program.name}]",
        f"command={' '.join(_quote(word) for word in program.command)}",
        *([f"environment={environment}"] if environment else []),
        # Started by calls once what they need is ready: the supervisor itself knows no readiness.
        "autostart=false",
        "autorestart=true",
        f"startsecs={program.start_seconds}",
        f"startretries={program.start_retries}",
        "stopsignal=TERM",
        f"stopwaitsecs={program.stop_seconds}",
        # A program's children end with it.
        "stopasgroup=true",
        "killasgroup=true",
        "redirect_stderr=true",
        # The supervisor expands this one twice.
        f"stdout_logfile={_escape(_escape(layout.logs / program.name))}.log",
        "stdout_logfile_maxbytes=50MB",
        "stdout_logfile_backups=2",
    ]


def _escape(value: object) -> str:
    return str(value).replace("%", "%%")


def _quote(word: str) -> str:
    """One word of a command line, for the supervisor's parser: quotes as in a shell, and `;` begins a comment."""
    return '"{}"'.format(_escape(word).replace("\\", "\\\\").replace('"', '\\"'))


class _Transport(xmlrpc.client.Transport):
    """XML-RPC over a unix socket, with a deadline on each call."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", timeout=CALL_DEADLINE)
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(CALL_DEADLINE)
        try:
            stream.connect(os.fspath(self._path))
        except OSError:
            stream.close()
            raise
        connection.sock = stream
        # Where the base class keeps it, so that closing the proxy closes it.
        self._connection = (host, connection)
        return connection


class Supervisor:
    """Calls to the supervisor of one stack. It need not run; :meth:`running` tells."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def _call(self, method: str, *arguments: object) -> Any:
        # A connection for each call: a stack lives longer than any connection to it, and calls are few.
        transport = _Transport(self._layout.supervisor_socket)
        with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def running(self) -> bool:
        """Whether the supervisor answers."""
        try:
            return bool(self._call("getState")["statename"] == "RUNNING")
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return False

    def process_id(self) -> int:
        """The supervisor's own process id."""
        return int(self._call("getPID"))

    def states(self) -> dict[str, ProgramState]:
        """Every program by its name."""
        return {
            info["name"]: ProgramState(
                name=info["name"],
                state=info["statename"],
                process_id=info["pid"],
                uptime=float(info["now"] - info["start"]) if info["pid"] else 0.0,
                problem=info["spawnerr"],
            )
            for info in self._call("getAllProcessInfo")
        }

    def start_program(self, program: Program) -> None:
        """Start a program and return; one that is already started is left alone."""
        with self._faults(program, allowed="ALREADY_STARTED"):
            self._call("startProcess", program.full_name, False)

    def stop_program(self, program: Program) -> None:
        """Ask a program to end and return; one that does not run is left alone."""
        with self._faults(program, allowed="NOT_RUNNING"):
            self._call("stopProcess", program.full_name, False)

    def replace_group(self, group: str, programs: Sequence[Program]) -> None:
        """Have other programs in the last group of the configuration. None of those that it has runs."""
        path = self._layout.supervisor_configuration
        path.write_text(replaced(path.read_text(), self._layout, group, programs))
        self._call("reloadConfig")
        self._call("removeProcessGroup", group)
        self._call("addProcessGroup", group)

    @staticmethod
    @contextlib.contextmanager
    def _faults(program: Program, *, allowed: str) -> Iterator[None]:
        try:
            yield
        except xmlrpc.client.Fault as fault:
            if not fault.faultString.startswith(allowed):
                raise StackError(f"{program.name}: the supervisor says {fault.faultString}") from fault

    def start(self, programs: Sequence[Program], *, patience: float = 30.0) -> None:
        """Start the supervisor, in a session of its own, and wait until it answers.

        Raises
        ------
        StackError
            It ended or did not answer in time; the message has the end of its log.
        """
        layout = self._layout
        layout.supervisor_configuration.write_text(render(layout, programs))
        log = layout.logs / "supervisord.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(layout.supervisor_configuration)],
                cwd=layout.root,
                env=_inherited(layout),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + patience
        while not self.running():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise StackError(f"the supervisor did not start:\n{last_lines(log)}")
            time.sleep(0.02)
        # It lives on without its parent; what is left for this process is to collect it should it end first.
        _started.append(process)

    def shut_down(self, *, patience: float) -> None:
        """Have the supervisor stop its programs, the services first, and end itself.

        Raises
        ------
        StackError
            It is still there after ``patience`` seconds.
        """
        process_id = self.process_id()
        self._call("shutdown")
        deadline = time.monotonic() + patience
        while read_process(process_id):
            if time.monotonic() > deadline:
                raise StackError(f"the supervisor (pid {process_id}) has not ended after {patience:.0f} s")
            time.sleep(0.02)
        for process in _started:
            process.poll()


_started: list[subprocess.Popen[bytes]] = []


def _inherited(layout: Layout) -> dict[str, str]:
    """What the programs get of the caller's environment: no settings, which have a file of their own."""
    wanted = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "JAVA_HOME", "SSL_CERT_FILE", "TZ")
    kept = {name: os.environ[name] for name in wanted if name in os.environ}
    return {**kept, MARKER: str(layout.run), "PYTHONUNBUFFERED": "1"}


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a log file, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return f"({log} cannot be read)"
    return "\n".join(f"  {line}" for line in lines[-count:])
