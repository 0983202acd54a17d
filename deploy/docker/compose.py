"""Runs `docker compose` for the stack, and reads what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.docker.errors import StackError

ROOT = Path(__file__).resolve().parents[2]

#: What the compose file uses: health checks with `start_interval` (the engine), `env_file` with `required` (Compose).
LEAST_ENGINE = (25, 0)
LEAST_COMPOSE = (2, 24)
NEEDED = "the compose stack needs Docker Engine 25 or later with Compose 2.24 or later"

#: Seconds for a question that the engine answers at once.
ANSWER_S = 60.0

#: A service ends with this status where starting it again would not help.
_USERS_MISTAKE = 2
_MOST_RESTARTS = 4

_LOG_LINES = 15
_LONGEST_LINE = 1_500
_BUILDING = re.compile(r"#\d+ \[(?P<service>[a-z0-9-]+) [^\]]+\] ")
_PULLING = re.compile(r" ?(?P<service>[a-z0-9-]+) Pulling$")

#: So that a command is about all services of the file, also those that are not always started.
EVERY_SERVICE = {"COMPOSE_PROFILES": "learners-4"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Container:
    """A container of the project.

    ``state`` and ``health`` are Docker's words (``created``, ``running``, ``restarting``, ``exited``, …; ``starting``,
    ``healthy``, ``unhealthy``); ``published`` has its ports on this machine while it runs.
    """

    name: str
    service: str
    state: str
    health: str
    exit_code: int
    published: frozenset[int]

    @property
    def well(self) -> bool:
        """Whether it is what it should be after a start: ended with success (`setup`), or healthy.

        All others have a health check. One that was just restarted has no word on its health yet.
        """
        if self.service == "setup":
            return self.state == "exited" and self.exit_code == 0
        return self.state == "running" and self.health == "healthy"


class Compose:
    """`docker compose` in this repository.

    Parameters
    ----------
    say:
        Takes a line for the user about what happens now.
    """

    def __init__(self, say: Say) -> None:
        self._say = say

    def check_engine(self) -> None:
        """See that there is an engine, that it answers, and that it is new enough.

        Raises
        ------
        StackError
            With what is missing.
        """
        try:
            engine = self.ask("docker", "version", "--format", "{{.Server.Version}}")
        except StackError as error:
            raise StackError(f"{NEEDED}, and the engine does not answer:\n{error}") from error
        if _version(engine) < LEAST_ENGINE:
            raise StackError(f"{NEEDED}; the engine is {engine.strip()}")
        try:
            compose = self.ask("docker", "compose", "version", "--short")
        except StackError as error:
            raise StackError(f"{NEEDED}, and there is no Compose:\n{error}") from error
        if _version(compose) < LEAST_COMPOSE:
            raise StackError(f"{NEEDED}; Compose is {compose.strip()}")

    def containers(self) -> list[Container]:
        """Every container of the project, also those that have ended."""
        answer = self.ask("docker", "compose", "ps", "--all", "--format", "json")
        return [
            Container(
                name=one["Name"],
                service=one["Service"],
                state=one["State"],
                health=one["Health"],
                exit_code=one["ExitCode"],
                published=frozenset(port["PublishedPort"] for port in one["Publishers"] or [] if port["PublishedPort"]),
            )
            for one in map(json.loads, answer.splitlines())
        ]

    def published(self) -> dict[int, str]:
        """Each port that the file publishes on this machine, with the service it belongs to."""
        services: dict[str, Any] = json.loads(self.ask("docker", "compose", "config", "--format", "json"))["services"]
        return {
            int(port["published"]): service
            for service, declared in services.items()
            for port in declared.get("ports", [])
        }

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """Run a command that takes its time, saying how far it is.

        Raises
        ------
        StackError
            It failed; the message has its last lines.
        """
        last: deque[str] = deque(maxlen=_LOG_LINES)
        said: set[str] = set()
        with _start(["docker", "compose", "--progress", "plain", *arguments], environment or {}) as process:
            for line in process.stdout or ():
                last.append(line.rstrip())
                step = progress(line)
                if step is not None and step not in said:
                    said.add(step)
                    self._say(step)
        if process.returncode:
            raise StackError("\n".join([f"docker compose {arguments[0]} failed:", *_cut(last)]))

    def wait(self, services: Iterable[str], patience: float) -> None:
        """Wait until these services are well, saying of each that it is; ``patience`` in seconds.

        A service that ends while its broker is still busy is right to, and is started again; one that ends again and
        again, or with the status of a user's mistake, is not waited for. That is why this is not `up --wait`, which
        takes the first end of any container for a failure.

        Raises
        ------
        StackError
            With the state of each that is not well, and the end of its log.
        """
        waiting = set(services)
        deadline = time.monotonic() + patience
        while True:
            containers = [one for one in self.containers() if one.service in waiting]
            for name in [one.service for one in containers if one.well]:
                waiting.remove(name)
                self._say("the signing keys and the topics are there" if name == "setup" else f"{name} is ready")
            if not waiting:
                return
            unwell = [one for one in containers if not one.well]
            if failed := [one for one in unwell if self._failed(one)]:
                raise StackError(self._troubles(failed))
            if time.monotonic() > deadline:
                missing = waiting - {one.service for one in unwell}
                raise StackError("\n".join([self._troubles(unwell), *(f"{name} has no container" for name in missing)]))
            time.sleep(0.5)

    def _failed(self, container: Container) -> bool:
        if container.state not in {"exited", "restarting", "dead"}:
            return False
        if container.state != "restarting":
            return True
        # The list leaves out its exit status while it is started again.
        ends = self.ask("docker", "inspect", "--format", "{{.State.ExitCode}} {{.RestartCount}}", container.name)
        status, restarts = map(int, ends.split())
        return status == _USERS_MISTAKE or restarts >= _MOST_RESTARTS

    def troubles(self) -> str:
        """The state of what is not well, and the end of its log.

        What is only created waits for another, so it is not at fault.
        """
        return self._troubles([one for one in self.containers() if one.state != "created" and not one.well])

    def _troubles(self, containers: Iterable[Container]) -> str:
        return "\n".join(self._trouble(one) for one in containers)

    def _trouble(self, container: Container) -> str:
        ended = f", exit status {container.exit_code}" if container.state == "exited" else ""
        state = container.health if container.state == "running" else container.state
        lines = [f"{container.service} is not ready ({state}{ended})"]
        checks = json.loads(self.ask("docker", "inspect", "--format", "{{json .State.Health}}", container.name)) or {}
        if container.state == "running" and checks.get("Log"):
            lines.append(f"its health check says: {checks['Log'][-1]['Output'].strip()}")
        end = ("--tail", str(_LOG_LINES), container.service)
        log = self.ask("docker", "compose", "logs", "--no-color", "--no-log-prefix", *end)
        return "\n".join([*lines, "its log ends with:", *_cut(log.splitlines())])

    def ask(self, *command: str) -> str:
        """What a command that answers at once prints.

        Raises
        ------
        StackError
            It failed or did not end; the message has what it printed.
        """
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **EVERY_SERVICE},
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=ANSWER_S,
            )
        except FileNotFoundError as error:
            raise StackError("there is no program docker on the path") from error
        except subprocess.TimeoutExpired as error:
            raise StackError(f"`{' '.join(command)}` did not answer within {ANSWER_S:.0f} s") from error
        if done.returncode:
            raise StackError("\n".join(_cut((done.stderr or done.stdout).strip().splitlines()[-_LOG_LINES:])))
        return done.stdout


def progress(line: str) -> str | None:
    """What a line of `docker compose --progress plain` means to the user, if anything."""
    if found := _BUILDING.match(line):
        return f"building the image of {found['service']}"
    if found := _PULLING.match(line.rstrip()):
        return f"pulling the image of {found['service']}"
    return None


def _start(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except FileNotFoundError as error:
        raise StackError(f"{NEEDED}, and there is no program docker on the path") from error


def _cut(lines: Iterable[str]) -> list[str]:
    # The end of a line: a log line in JSON ends with its traceback, which ends with what went wrong.
    return [line if len(line) <= _LONGEST_LINE else f"…{line[-_LONGEST_LINE:]}" for line in lines]


def _version(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
