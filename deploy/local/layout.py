"""Where the local stack keeps its files, and which loopback ports it takes."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: The longest path that a unix socket can have on Linux, in bytes, without the closing zero.
LONGEST_SOCKET_PATH = 107


def _ops_ports() -> dict[str, int]:
    return {
        "features": 19101,
        "gateway": 19102,
        "outcomes": 19103,
        "learner": 19104,
        "rollout": 19105,
        "monitor": 19106,
    }


@dataclass(frozen=True)
class Ports:
    """The ports of one stack, all on 127.0.0.1.

    ``operations`` has the HTTP port of each service (``/livez``, ``/readyz``, ``/metrics``), by the service's name,
    in the order in which the services are started. ``further_learners`` has those of the learners 1, 2, … where several
    share the outcomes.
    """

    kafka: int = 19092
    kafka_controller: int = 19093
    redis: int = 16379
    triton_http: int = 18000
    triton_grpc: int = 18001
    triton_metrics: int = 18002
    gateway: int = 15051
    operations: Mapping[str, int] = field(default_factory=_ops_ports)
    further_learners: Sequence[int] = range(19111, 19174)


@dataclass(frozen=True)
class Layout:
    """The directories of one stack.

    Parameters
    ----------
    root:
        The repository. Programs run with it as their working directory.
    run:
        What a running stack writes: data, logs, generated configuration. Two stacks never share it.
    cache:
        What is downloaded or built once and used by every stack of this repository.
    keys:
        The key pair that signs models.
    """

    root: Path = ROOT
    run: Path = ROOT / ".run" / "local"
    cache: Path = ROOT / ".cache"
    keys: Path = ROOT / ".run" / "keys"

    @property
    def logs(self) -> Path:
        """One log file a program, ``<name>.log``."""
        return self.run / "logs"

    @property
    def services_environment(self) -> Path:
        """The environment that the services are started with, one ``NAME=value`` a line."""
        return self.run / "services.env"

    @property
    def supervisor_configuration(self) -> Path:
        return self.run / "supervisord.conf"

    @property
    def supervisor_pid(self) -> Path:
        return self.run / "supervisord.pid"

    @property
    def supervisor_socket(self) -> Path:
        """The control socket of supervisord.

        In ``run`` where its path is short enough for a unix socket, else in a private directory under the temporary
        directory, with a name that follows from ``run``.
        """
        socket = self.run / "supervisor.sock"
        # supervisord binds a longer, temporary name first: `<path>.<its pid>`.
        if len(os.fsencode(socket)) + len(".4194304") <= LONGEST_SOCKET_PATH:
            return socket
        digest = hashlib.sha256(os.fsencode(self.run)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"headrace-{os.getuid()}-{digest}" / "supervisor.sock"

    @property
    def kafka(self) -> Path:
        return self.run / "kafka"

    @property
    def redis(self) -> Path:
        return self.run / "redis"

    @property
    def triton(self) -> Path:
        return self.run / "triton"

    def make_directories(self) -> None:
        """Make what the stack writes to, the directory of the control socket for this user alone."""
        for directory in (self.run, self.logs, self.kafka, self.redis, self.triton, self.cache):
            directory.mkdir(parents=True, exist_ok=True)
        socket_directory = self.supervisor_socket.parent
        if socket_directory != self.run:
            socket_directory.mkdir(mode=0o700, exist_ok=True)
            owner = socket_directory.stat().st_uid
            if owner != os.getuid():
                # Someone else made a directory of this name first: never put a control socket there.
                raise PermissionError(f"{socket_directory} belongs to user {owner}")
