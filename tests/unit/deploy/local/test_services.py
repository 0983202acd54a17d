import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local import Layout, Ports, StackError
from deploy.local.launch import read_environment
from deploy.local.layout import ROOT
from deploy.local.services import complete_environment, programs, write_environment


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(run=tmp_path, keys=tmp_path / "keys")


def test_settings_go_before_the_environment_and_that_before_the_stack(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_NAMESPACE", "mine")
    monkeypatch.setenv("HEADRACE_PIPELINE", "pipelines/other.py")
    environment = complete_environment(layout, Ports(redis=1234, gateway=5678), {"HEADRACE_NAMESPACE": "given"})
    assert environment["HEADRACE_NAMESPACE"] == "given"
    assert environment["HEADRACE_PIPELINE"] == "pipelines/other.py"
    assert environment["HEADRACE_REDIS_URL"] == "redis://127.0.0.1:1234/0"
    assert environment["HEADRACE_FEATURES_OPS_PORT"] == "19101"
    assert environment["HEADRACE_GATEWAY_GRPC_PORT"] == "5678"


@pytest.mark.parametrize("settings", [{"HEADRACE NAMESPACE": "a"}, {"HEADRACE_NAMESPACE": "a\nb"}])
def test_what_no_line_can_hold_is_refused(layout: Layout, settings: dict[str, str]) -> None:
    with pytest.raises(StackError, match="NAMESPACE"):
        complete_environment(layout, Ports(), settings)


def test_a_launched_program_has_the_environment_of_the_file(layout: Layout) -> None:
    values = {"HEADRACE_A": "x = 'y' \"z\" %(here)s $HOME # no comment", "HEADRACE_B": "", "HEADRACE_C": "naïve"}
    write_environment(layout, values)
    assert read_environment(str(layout.services_environment)) == values
    show = "import json, os; print(json.dumps([os.getpid(), dict(os.environ)]))"
    launcher = str(ROOT / "deploy" / "local" / "launch.py")
    with subprocess.Popen(
        [sys.executable, "-I", "-S", launcher, str(layout.services_environment), "B=c=d", sys.executable, "-c", show],
        stdout=subprocess.PIPE,
        env={**os.environ, "HEADRACE_A": "old"},
    ) as process:
        process_id, environment = json.loads(process.communicate(timeout=30)[0])
    assert process_id == process.pid
    assert (values | {"B": "c=d"}).items() <= environment.items()


def test_learners_that_share_the_outcomes_are_programs_of_their_own(layout: Layout) -> None:
    ports = Ports(further_learners=(1111, 2222))
    names = [one.name for one in programs(layout, ports, {"HEADRACE_LEARNER_SHARDS": "3"})]
    assert names == ["features", "gateway", "outcomes", "learner", "learner-1", "learner-2", "rollout", "monitor"]
    last = programs(layout, ports, {"HEADRACE_LEARNER_SHARDS": "3"})[5]
    assert last.ports == {"operations": 2222}
    assert {"HEADRACE_LEARNER_INSTANCE=2", "HEADRACE_LEARNER_OPS_PORT=2222"} <= set(last.command)
    assert last.command[-2:] == ["run", "learner"]
    # The learner itself says what is wrong with a setting.
    for wrong in ("", "two", "-1", "0", "1.5"):
        assert len(programs(layout, ports, {"HEADRACE_LEARNER_SHARDS": wrong})) == 6
    with pytest.raises(StackError, match="HEADRACE_LEARNER_SHARDS=4: there are ports for 3 learners"):
        programs(layout, ports, {"HEADRACE_LEARNER_SHARDS": "4"})
