"""The stack of `docker-compose.yml`: Kafka, Redis, Triton, MLflow and the six services in containers."""

from __future__ import annotations

import os
from collections.abc import Mapping

from deploy.docker.compose import EVERY_SERVICE, ROOT, Compose, Say
from deploy.docker.errors import StackError
from deploy.local.processes import port_holder, port_is_free
from deploy.local.services import SHARDS, shards

INFRASTRUCTURE = ("kafka", "redis", "triton", "mlflow")
SERVICES = ("features", "gateway", "outcomes", "learner", "rollout", "monitor")

#: Started beside `learner` where so many learners share the outcomes.
FURTHER_LEARNERS = ("learner-1", "learner-2", "learner-3")

#: Seconds until everything must be ready, once the images are there and the containers are started.
READY_S = 180

#: Settings of these names are for compose itself, not for the services.
_OF_COMPOSE = ("HEADRACE_PORT_", "HEADRACE_ENV_FILE")


class Stack:
    """The compose project of this repository; COMPOSE_PROJECT_NAME in the environment names another.

    Parameters
    ----------
    say:
        Takes a line for the user about what happens now; nothing is said by default.
    """

    def __init__(self, say: Say = lambda line: None) -> None:
        self._say = say
        self._compose = Compose(say)
        self._settings = ROOT / ".run" / "compose" / "services.env"

    def check(self) -> None:
        """See that nothing keeps the stack from starting.

        Raises
        ------
        StackError
            There is no engine, it is too old or does not answer, or a port is taken.
        """
        self._compose.check_engine()
        self._check_ports()

    def start_infrastructure(self) -> list[str]:
        """Start Kafka, Redis, Triton and MLflow where they do not run, and wait until they are ready.

        Returns
        -------
        The names of those that were started: none means that all of them were up already.

        Raises
        ------
        StackError
            As :meth:`check`; an image cannot be had; or one of them is not ready in time, with the end of its log.
        """
        self.check()
        return self._start_infrastructure()

    def _start_infrastructure(self) -> list[str]:
        running = {container.service for container in self._compose.containers() if container.state == "running"}
        missing = [name for name in INFRASTRUCTURE if name not in running]
        if missing:
            self._say(f"starting {', '.join(missing)}")
        self._up(INFRASTRUCTURE, {})
        return missing

    def start_services(self, environment: Mapping[str, str] | None = None) -> None:
        """Build the images, start the six services with these settings, and wait until each says that it is ready.

        Services that run are stopped first, so that all of them have the same settings. The keys and the topics are
        created before the start. The infrastructure is started where it is not up. ``HEADRACE_LEARNER_SHARDS`` says how
        many learners there are.

        Parameters
        ----------
        environment:
            Settings by their variable (``HEADRACE_…``). They go before those of the caller's own environment. What
            the compose file itself fixes (addresses, directories) stays as it is there.

        Raises
        ------
        StackError
            As :meth:`start_infrastructure`; a setting that no variable can hold; an image cannot be built; or a
            service is not ready in time, with the end of its log.
        """
        settings = {**_own_settings(), **(environment or {})}
        services = _services(settings)
        lines = [_environment_line(name, value) for name, value in sorted(settings.items())]
        self.check()
        self._say("building the images; the first time takes some minutes")
        self._compose.run("build")
        self._start_infrastructure()
        self._remove_services()
        self._settings.parent.mkdir(parents=True, exist_ok=True)
        self._settings.write_text("# What the services were last started with.\n" + "".join(lines))
        self._settings.chmod(0o600)
        self._say(f"starting {', '.join(services)}")
        try:
            self._up(("setup", *services), {**settings, "HEADRACE_ENV_FILE": str(self._settings)})
        except StackError:
            # A wrong setting, most likely: it must not be tried on and on.
            self._remove_services()
            raise

    def stop_services(self) -> None:
        """Stop the six services, as a deployment would, and remove their containers; the infrastructure goes on."""
        self._compose.check_engine()
        self._remove_services()

    def stop(self) -> bool:
        """Stop everything and remove the containers. The data stays, in the volumes.

        Returns
        -------
        Whether anything was running.
        """
        self._compose.check_engine()
        running = any(container.state in {"running", "restarting"} for container in self._compose.containers())
        if running:
            self._say("stopping the containers")
        self._compose.run("down", environment=EVERY_SERVICE)
        return running

    def _up(self, services: tuple[str, ...], environment: Mapping[str, str]) -> None:
        try:
            self._compose.run("up", "--detach", *services, environment=environment)
        except StackError as error:
            # Kafka or setup, for which the services wait, or something that compose has said itself.
            raise StackError(self._compose.troubles() or str(error)) from error
        self._compose.wait(services, READY_S)

    def _remove_services(self) -> None:
        self._compose.run("rm", "--stop", "--force", "setup", *SERVICES, *FURTHER_LEARNERS, environment=EVERY_SERVICE)

    def _check_ports(self) -> None:
        """Name every port that a container which does not run would not get."""
        ours = {port for container in self._compose.containers() for port in container.published}
        taken = []
        for port, service in self._compose.published().items():
            if port in ours or port_is_free(port):
                continue
            holder = port_holder(port)
            by = f"pid {holder.id} ({holder.command})" if holder else "a process that this user cannot see"
            taken.append(f"port {port} ({service}) is taken by {by}")
        if taken:
            raise StackError(
                "\n".join([*taken, "`make down` stops the stack without Docker, `docker compose down` one with it"])
            )


def _services(settings: Mapping[str, str]) -> tuple[str, ...]:
    """What is started with these settings."""
    learners = shards(settings)
    if learners > 1 + len(FURTHER_LEARNERS):
        raise StackError(f"{SHARDS}={learners}: the compose file has up to {1 + len(FURTHER_LEARNERS)} learners")
    return (*SERVICES, *FURTHER_LEARNERS[: learners - 1])


def _own_settings() -> dict[str, str]:
    """The caller's own settings for the services."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("HEADRACE_") and not name.startswith(_OF_COMPOSE)
    }


def _environment_line(name: str, value: str) -> str:
    """One line of the environment file; in single quotes nothing of a value is taken for syntax."""
    if not name.isidentifier():
        raise StackError(f"{name!r} is not the name of an environment variable")
    if any(character in value for character in "'\n\0"):
        raise StackError(f"{name} has a quote, a line break or a zero byte in its value, which no setting takes")
    return f"{name}='{value}'\n"
