from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from headrace.cli.__main__ import AREAS, headrace

ROOT = Path(__file__).parents[3]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return subprocess.run(
        [sys.executable, "-m", "headrace.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=clean | {"PYTHONPATH": str(ROOT / "services")} | environment,
        check=False,
    )


def test_every_area_has_its_command() -> None:
    context = click.Context(headrace)
    for area in AREAS:
        module = importlib.import_module(f"headrace.cli.{area.replace('-', '_')}")
        assert headrace.get_command(context, area) is getattr(module, area.replace("-", "_"))


def test_help_lists_the_areas() -> None:
    done = run("--help")
    assert done.returncode == 0
    for area, line in AREAS.items():
        assert f"  {area}" in done.stdout
        assert line.split()[0] in done.stdout


def test_run_lists_the_services() -> None:
    done = run("run", "--help")
    assert done.returncode == 0
    assert "gateway    predictions over gRPC and Kafka" in done.stdout.replace("gateway   ", "gateway    ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "error: No such command 'nothing'. Try `headrace --help`."),
        (("run", "nothing"), "error: No such command 'nothing'. Try `headrace run --help`."),
        (("topics", "create", "--partitions", "0"), "error: Invalid value for '--partitions'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_wrong_settings_are_a_line_each() -> None:
    done = run("topics", "list", HEADRACE_NAMESPACE="A", HEADRACE_LOG_LEVEL="loud")
    assert done.returncode == 2
    assert [line[: len("error: HEADRACE_")] for line in done.stderr.splitlines()] == ["error: HEADRACE_"] * 2


def test_a_pipeline_that_is_not_there() -> None:
    done = run("topics", "list", HEADRACE_PIPELINE="pipelines/none.py")
    assert done.returncode == 2
    assert done.stderr.startswith("error: pipeline pipelines/none.py: there is no such file")


def test_keys_create(tmp_path: Path) -> None:
    done = run("keys", "create", "--directory", str(tmp_path))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"private key: {tmp_path}/model_signing.pem",
        f"public key: {tmp_path}/model_signing.pub.pem",
    ]
    again = run("keys", "create", "--directory", str(tmp_path))
    assert again.returncode == 2
    assert again.stderr.startswith(f"error: {tmp_path}/model_signing.pem exists already")
