"""The six services as programs of the stack, and the environment that they are started with.

A stream that one learner cannot carry has several (`HEADRACE_LEARNER_SHARDS`): `learner-1`, `learner-2` and so on,
beside `learner`, which is number 0.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from deploy.local.errors import StackError
from deploy.local.keys import signing_keys
from deploy.local.layout import Layout, Ports
from deploy.local.supervisord import SERVICES, Program

SHARDS = "HEADRACE_LEARNER_SHARDS"


def programs(layout: Layout, ports: Ports, settings: Mapping[str, str]) -> list[Program]:
    """The services that are started with these settings."""
    learners = shards(settings)
    if learners - 1 > len(ports.further_learners):
        raise StackError(f"{SHARDS}={learners}: there are ports for {len(ports.further_learners) + 1} learners")
    found = []
    for name, port in ports.operations.items():
        uses = {"gRPC": ports.gateway, "operations": port} if name == "gateway" else {"operations": port}
        found.append(_program(layout, name, name, uses))
        if name != "learner":
            continue
        for number, further in zip(range(1, learners), ports.further_learners, strict=False):
            own = {"HEADRACE_LEARNER_INSTANCE": str(number), "HEADRACE_LEARNER_OPS_PORT": str(further)}
            found.append(_program(layout, f"learner-{number}", name, {"operations": further}, own))
    return found


def shards(settings: Mapping[str, str]) -> int:
    """How many learners share the outcomes; 1 where the setting is not a number, which the learner itself refuses."""
    text = settings.get(SHARDS, "1")
    return max(1, int(text)) if text.isdecimal() else 1


def _program(
    layout: Layout, name: str, service: str, ports: Mapping[str, int], own: Mapping[str, str] | None = None
) -> Program:
    # The environment comes from the file of :func:`write_environment`, but for what is this program's own.
    launcher = layout.root / "deploy" / "local" / "launch.py"
    pairs = [f"{name}={value}" for name, value in (own or {}).items()]
    run = [sys.executable, "-m", "headrace.cli", "run", service]
    return Program(
        name,
        SERVICES,
        [sys.executable, "-I", "-S", str(launcher), str(layout.services_environment), *pairs, *run],
        ports,
        # Longer than its imports take, so that one that ends at once is tried again later and later.
        start_seconds=5,
        # 1 + 2 + … + 20 s: longer than any restart of the broker takes.
        start_retries=20,
        stop_seconds=30,
    )


def base_environment(layout: Layout, ports: Ports) -> dict[str, str]:
    """The settings that connect the services with this stack."""
    keys = signing_keys(layout.keys)
    environment = {
        "HEADRACE_KAFKA_BOOTSTRAP": f"127.0.0.1:{ports.kafka}",
        "HEADRACE_REDIS_URL": f"redis://127.0.0.1:{ports.redis}/0",
        "HEADRACE_TRITON_URLS": f"127.0.0.1:{ports.triton_grpc}",
        "HEADRACE_GATEWAY_GRPC_PORT": str(ports.gateway),
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
