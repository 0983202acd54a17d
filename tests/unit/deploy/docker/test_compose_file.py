"""The compose file publishes what the stack without Docker has, and builds each service from its own extra."""

import re
import tomllib
from pathlib import Path

from deploy.docker.stack import FURTHER_LEARNERS, INFRASTRUCTURE, SERVICES
from deploy.local import Ports
from headrace.cli.run import SERVICES as COMMANDS

ROOT = Path(__file__).resolve().parents[4]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
BLOCKS = dict(
    re.findall(
        r"^  ([a-z0-9-]+):(?: &\w+)?\n((?:    .*\n|\n)+)", COMPOSE[COMPOSE.index("\nservices:\n") :], re.MULTILINE
    )
)


def test_all_services_are_there() -> None:
    assert set(BLOCKS) == {*INFRASTRUCTURE, *SERVICES, *FURTHER_LEARNERS, "setup"}
    assert set(SERVICES) == set(COMMANDS)


def test_the_published_ports_are_those_of_the_other_stack() -> None:
    published = {name: set(map(int, re.findall(r"_[A-Z_]+:-(\d+)\}:\d", block))) for name, block in BLOCKS.items()}
    ports = Ports()
    expected = {name: {port} for name, port in ports.operations.items()}
    expected["gateway"].add(ports.gateway)
    expected |= {"kafka": {ports.kafka}, "redis": {ports.redis}, "mlflow": {15000}, "setup": set()}
    expected["triton"] = {ports.triton_http, ports.triton_grpc, ports.triton_metrics}
    assert published == expected | {name: set() for name in FURTHER_LEARNERS}


def test_every_port_is_published_on_loopback_alone() -> None:
    for published in re.findall(r"\$\{HEADRACE_PORT_\w+:-\d+\}:\d+", COMPOSE):
        assert f"127.0.0.1:{published}" in COMPOSE


def test_each_service_has_its_own_extra_and_is_watched() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in SERVICES:
        block = BLOCKS[name]
        assert f"image: headrace-{name}\n" in block
        assert f"args: {{ EXTRA: {name} }}" in block or "build: *features-build" in block
        assert name in extras
        assert (ROOT / "requirements" / f"{name}.txt").is_file()
        port = Ports().operations[name]
        assert f'/app/ready.py, "{port}"]' in block
        assert f"HEADRACE_{name.upper()}_OPS_PORT: {port}\n" in block


def test_further_learners_are_numbered_and_started_with_so_many_and_more() -> None:
    for number, name in enumerate(FURTHER_LEARNERS, 1):
        block = BLOCKS[name]
        assert f'HEADRACE_LEARNER_INSTANCE: "{number}"' in block
        assert "<<: *learner\n" in block
        profiles = ", ".join(f"learners-{count}" for count in range(number + 1, len(FURTHER_LEARNERS) + 2))
        assert f"profiles: [{profiles}]" in block


def test_the_private_key_is_mounted_in_the_learner_and_where_it_is_made() -> None:
    assert {name for name, block in BLOCKS.items() if re.search(r"- signing:/", block)} == {"learner", "setup"}


def test_no_image_is_pinned_by_digest_or_left_to_the_newest() -> None:
    for image in re.findall(r"image: (\S+)", COMPOSE):
        assert "@" not in image
        assert image.startswith("headrace-") or not image.endswith(":latest")
        assert image.startswith("headrace-") or ":" in image
