"""The six services as programs of the stack, and the environment that they are started with."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from deploy.local.errors import StackError
from deploy.local.keys import signing_keys
from deploy.local.layout import Layout, Ports


def command(layout: Layout, service: str) -> list[str]:
    """The command line of a service; its environment comes from the file of :func:`write_environment`."""
    launcher = layout.root / "deploy" / "local" / "launch.py"
    run = [sys.executable, "-m", "headrace.cli", "run", service]
    return [sys.executable, "-I", "-S", str(launcher), str(layout.services_environment), *run]


def base_environment(layout: Layout, ports: Ports) -> dict[str, str]:
    """The settings that connect the services with this stack."""
    keys = signing_keys(layout.keys)
    environment = {
        "HEADRACE_KAFKA_BOOTSTRAP": f"127.0.0.1:{ports.kafka}",
        "HEADRACE_REDIS_URL": f"redis://127.0.0.1:{ports.redis}/0",
        "HEADRACE_TRITON_URLS": f"127.0.0.1:{ports.triton_grpc}",
        "HEADRACE_ARTIFACTS": str(layout.run.parent / "artifacts"),
        "HEADRACE_STATE_DIR": str(layout.run.parent / "state"),
        "HEADRACE_LEARNER_SIGNING_KEY": str(keys.private),
        "HEADRACE_SIGNING_PUBLIC_KEY": str(keys.public),
    }
    for service, port in ports.operations.items():
        environment[f"HEADRACE_{service.upper()}_OPS_PORT"] = str(port)
    return environment


def complete_environment(layout: Layout, ports: Ports, settings: Mapping[str, str]) -> dict[str, str]:
    """What the services are started with: the stack's settings, then the caller's own environment, then ``settings``.

    Raises
    ------
    StackError
        A name or value that a line of the environment file cannot hold.
    """
    own = {name: value for name, value in os.environ.items() if name.startswith("HEADRACE_")}
    environment = {**base_environment(layout, ports), **own, **settings}
    for name, value in environment.items():
        if not name.isidentifier():
            raise StackError(f"{name!r} is not the name of an environment variable")
        if "\n" in value or "\0" in value:
            raise StackError(f"{name} has a line break or a zero byte in its value, which no setting takes")
    return environment


def write_environment(layout: Layout, environment: Mapping[str, str]) -> None:
    """Write the environment file that the services read when they start."""
    lines = "".join(f"{name}={value}\n" for name, value in sorted(environment.items()))
    draft = layout.services_environment.with_suffix(".draft")
    draft.write_text(f"# What the services were last started with. Written by each start.\n{lines}")
    draft.chmod(0o600)
    draft.replace(layout.services_environment)


def process_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command that works on the same settings as the services: the caller's own, and these."""
    return {**os.environ, **settings}
