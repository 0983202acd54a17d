"""What `docker compose` says is read rightly: its progress, its containers, and which of them is at fault."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.docker import StackError
from deploy.docker.compose import Compose, Container, progress, service_of

PROBLEM = "docker compose up failed:\n Container headrace-learner-1  Waiting\ncontainer headrace-learner-1 is unhealthy"


def container(service: str, state: str, health: str = "", exit_code: int = 0) -> Container:
    return Container(f"headrace-{service}-1", service, state, health, exit_code, frozenset())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("#12 [gateway build 5/8] RUN pip install\n", "building the image of gateway"),
        ("#12 [gateway internal] load build context\n", "building the image of gateway"),
        (" kafka Pulling \n", "pulling the image of kafka"),
        (" Container headrace-kafka-1  Healthy\n", "kafka is ready"),
        (" Container my-own-name-kafka-1  Healthy\n", "kafka is ready"),
        (" Container headrace-setup-1  Exited\n", "the signing keys and the topics are there"),
        (" Container headrace-gateway-1  Exited\n", None),
        ("#12 DONE 0.1s\n", None),
        ("\n", None),
    ],
)
def test_progress(line: str, said: str | None) -> None:
    assert progress(line) == said


def test_the_service_of_a_container() -> None:
    assert service_of("headrace-test-outcomes-1") == "outcomes"


@pytest.mark.parametrize(
    ("one", "well"),
    [
        (container("setup", "exited"), True),
        (container("setup", "exited", exit_code=2), False),
        (container("setup", "running"), False),
        (container("learner", "running", "healthy"), True),
        (container("learner", "running", "unhealthy"), False),
        (container("learner", "running"), False),
        (container("learner", "restarting"), False),
        (container("learner", "exited"), False),
    ],
)
def test_what_is_well(one: Container, well: bool) -> None:
    assert one.well is well


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program `docker` first on the path that runs this shell text."""

    def put(text: str) -> None:
        program = tmp_path / "docker"
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


def listed(service: str, state: str, health: str) -> str:
    fields = {"Name": f"headrace-{service}-1", "Service": service, "State": state, "Health": health, "ExitCode": 1}
    return json.dumps({**fields, "Publishers": [{"PublishedPort": 19104}, {"PublishedPort": 0}]})


def test_the_service_that_compose_names_is_the_one_at_fault(docker: Callable[[str], None]) -> None:
    rows = "\n".join(
        [
            listed("gateway", "running", "starting"),
            listed("rollout", "created", ""),
            listed("learner", "restarting", ""),
            listed("kafka", "running", "healthy"),
        ]
    )
    docker(
        f"""case "$*" in
        *ps*) cat <<'EOF'
{rows}
EOF
        ;;
        inspect*) echo '{{"Log": [{{"Output": "not asked for"}}]}}' ;;
        *logs*learner) echo "HEADRACE_LEARNER_GATHER_S: 'x' is not allowed" ;;
        esac"""
    )
    compose = Compose(lambda line: None)
    assert compose.troubles(PROBLEM).splitlines() == [
        "learner is not ready (restarting, exit status 1)",
        "its log ends with:",
        "HEADRACE_LEARNER_GATHER_S: 'x' is not allowed",
    ]
    both = compose.troubles("docker compose up failed:\napplication not healthy after 3m0s")
    assert "gateway is not ready (starting)\nits health check says: not asked for" in both
    assert "learner is not ready" in both
    assert "rollout" not in both, "it waits for another"
    assert compose.containers()[0].published == {19104}


def test_an_engine_that_is_too_old(docker: Callable[[str], None]) -> None:
    docker('case "$*" in *Server*) echo 24.0.7 ;; *) echo 2.40.3 ;; esac')
    with pytest.raises(StackError, match=r"Docker Engine 25 or later .*; the engine is 24\.0\.7"):
        Compose(lambda line: None).check_engine()


def test_a_compose_that_is_too_old(docker: Callable[[str], None]) -> None:
    docker('case "$*" in *Server*) echo 28.5.2 ;; *) echo v2.23.0 ;; esac')
    with pytest.raises(StackError, match=r"Compose is v2\.23\.0"):
        Compose(lambda line: None).check_engine()


def test_an_engine_that_does_not_answer(docker: Callable[[str], None]) -> None:
    docker("echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    with pytest.raises(StackError, match=r"the engine does not answer:\nCannot connect"):
        Compose(lambda line: None).check_engine()


def test_no_docker_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="there is no program docker on the path"):
        Compose(lambda line: None).check_engine()


def test_a_failed_command_says_its_last_lines(docker: Callable[[str], None]) -> None:
    docker("echo ' Container headrace-kafka-1  Healthy'; echo 'the disk is full' >&2; exit 17")
    said: list[str] = []
    with pytest.raises(StackError, match=r"docker compose build failed:\n(.*\n)*the disk is full"):
        Compose(said.append).run("build")
    assert said == ["kafka is ready"]
