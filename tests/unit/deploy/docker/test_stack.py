"""The compose stack names what keeps it from starting, and passes settings on as they are."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.docker import Stack, StackError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int) -> Path:
    """A program `docker` whose compose file publishes the taken port and where nothing runs; it notes its calls."""
    configuration = {"services": {"learner": {"ports": [{"published": str(taken)}]}, "monitor": {}}}
    (tmp_path / "configuration.json").write_text(json.dumps(configuration))
    program = tmp_path / "docker"
    program.write_text(
        f"""#!/bin/sh
        echo "$*" >> {tmp_path}/calls
        case "$*" in
        version*) echo 28.5.2 ;;
        *version*) echo 2.40.3 ;;
        *config*) cat {tmp_path}/configuration.json ;;
        esac"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_a_taken_port_is_named_before_anything_is_started(docker: Path, taken: int) -> None:
    with pytest.raises(StackError, match=rf"port {taken} \(learner\) is taken by pid \d+") as caught:
        Stack().start_services({})
    assert "`make down`" in str(caught.value)
    assert not any(" up " in call or "build" in call for call in (docker / "calls").read_text().splitlines())


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("HEADRACE_NAMESPACE", "it's", "HEADRACE_NAMESPACE has a quote"),
        ("HEADRACE_NAMESPACE", "a\nb", "a line break"),
        ("HEADRACE-NAMESPACE", "a", "'HEADRACE-NAMESPACE' is not the name of an environment variable"),
    ],
)
def test_a_setting_that_no_variable_can_hold(docker: Path, name: str, value: str, problem: str) -> None:
    with pytest.raises(StackError, match=problem):
        Stack().start_services({name: value})
    assert not (docker / "calls").exists()


def test_more_learners_than_the_file_has_are_refused(docker: Path) -> None:
    with pytest.raises(StackError, match="HEADRACE_LEARNER_SHARDS=5: the compose file has up to 4 learners"):
        Stack().start_services({"HEADRACE_LEARNER_SHARDS": "5"})
    assert not (docker / "calls").exists()


def test_stopping_says_whether_anything_ran(docker: Path) -> None:
    assert Stack().stop() is False
    assert any(call.endswith("down") for call in (docker / "calls").read_text().splitlines())
