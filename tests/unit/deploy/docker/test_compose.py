"""What `docker compose` says is read rightly: its progress, its containers, and which of them is at fault."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.docker import StackError
from deploy.docker.compose import Compose, Container, progress


def container(service: str, state: str, health: str = "", exit_code: int = 0) -> Container:
    return Container(f"headrace-{service}-1", service, state, health, exit_code, frozenset())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("#12 [gateway build 5/8] RUN pip install\n", "building the image of gateway"),
        ("#12 [gateway internal] load build context\n", "building the image of gateway"),
        (" kafka Pulling \n", "pulling the image of kafka"),
        (" Container headrace-kafka-1  Healthy\n", None),
        ("#12 DONE 0.1s\n", None),
        ("\n", None),
    ],
)
def test_progress(line: str, said: str | None) -> None:
    assert progress(line) == said


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
    fields = {"Name": f"headrace-{service}-1", "Service": service, "State": state, "Health": health}
    ports = [{"PublishedPort": 19104}, {"PublishedPort": 0}]
    return json.dumps({**fields, "ExitCode": 0, "Publishers": ports})


@pytest.fixture
def containers(docker: Callable[[str], None], tmp_path: Path) -> Callable[..., None]:
    """Lets Docker list these containers, with a log and a health check, and this exit status and number of restarts."""

    def put(*rows: str, ends: str = "0 0") -> None:
        (tmp_path / "rows").write_text("".join(f"{row}\n" for row in rows))
        docker(
            f"""case "$*" in
            *ps*) cat {tmp_path}/rows ;;
            *RestartCount*) echo {ends} ;;
            inspect*) echo '{{"Log": [{{"Output": "no answer"}}]}}' ;;
            *logs*) echo "HEADRACE_LEARNER_GATHER_S: 'x' is not allowed" ;;
            esac"""
        )

    return put


LOG = ["its log ends with:", "HEADRACE_LEARNER_GATHER_S: 'x' is not allowed"]


def test_what_is_not_well_is_named_with_its_log(containers: Callable[..., None]) -> None:
    containers(
        listed("gateway", "running", "unhealthy"),
        listed("rollout", "created", ""),
        listed("kafka", "running", "healthy"),
    )
    compose = Compose(lambda line: None)
    assert compose.troubles().splitlines() == [
        "gateway is not ready (unhealthy)",
        "its health check says: no answer",
        *LOG,
    ]
    assert compose.containers()[0].published == {19104}


def test_waiting_ends_when_all_are_well(containers: Callable[..., None]) -> None:
    containers(listed("kafka", "running", "healthy"), listed("redis", "running", "healthy"))
    said: list[str] = []
    Compose(said.append).wait(("kafka", "redis"), 5)
    assert said == ["kafka is ready", "redis is ready"]


@pytest.mark.parametrize(("exit_code", "restarts"), [(2, 0), (1, 9)], ids=["a user's mistake", "again and again"])
def test_a_service_that_ends_is_not_waited_for(containers: Callable[..., None], exit_code: int, restarts: int) -> None:
    containers(
        listed("gateway", "running", "starting"), listed("learner", "restarting", ""), ends=f"{exit_code} {restarts}"
    )
    with pytest.raises(StackError) as caught:
        Compose(lambda line: None).wait(("gateway", "learner"), 60)
    assert str(caught.value).splitlines() == ["learner is not ready (restarting)", *LOG]


def test_a_service_that_ended_once_is_waited_for(containers: Callable[..., None]) -> None:
    containers(listed("learner", "restarting", ""), ends="1 1")
    with pytest.raises(StackError, match=r"learner is not ready \(restarting\)\n(.*\n)*gateway has no"):
        Compose(lambda line: None).wait(("learner", "gateway"), 0.1)


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
    docker("echo ' kafka Pulling'; echo 'the disk is full' >&2; exit 17")
    said: list[str] = []
    with pytest.raises(StackError, match=r"docker compose build failed:\n(.*\n)*the disk is full"):
        Compose(said.append).run("build")
    assert said == ["pulling the image of kafka"]
