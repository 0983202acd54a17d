import shlex
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from deploy.local import Layout, Stack
from deploy.local.layout import LONGEST_SOCKET_PATH
from deploy.local.supervisord import INFRASTRUCTURE, SERVICES, Program, render, replaced


def test_the_supervisor_reads_back_what_was_written(tmp_path: Path) -> None:
    layout = Layout(root=tmp_path, run=tmp_path / "100% local")
    layout.make_directories()
    command = ("/bin/echo", "two words", "100%", 'a "quote"', "back\\slash", "$HOME")
    written = render(layout, [Program("echo", INFRASTRUCTURE, command, {}, {"PATH": "/a b:/50%,c"}, stop_seconds=7)])
    layout.supervisor_configuration.write_text(written)

    options = ServerOptions()
    options.realize(["-c", str(layout.supervisor_configuration)])

    (group,) = [group for group in options.process_group_configs if group.name == INFRASTRUCTURE]
    (program,) = group.process_configs
    assert tuple(shlex.split(program.command)) == command
    assert program.environment == {"PATH": "/a b:/50%,c"}
    assert (program.autostart, program.stopasgroup, program.killasgroup) == (False, True, True)
    assert program.stopwaitsecs == 7
    assert program.stdout_logfile == str(layout.logs / "echo.log")
    assert options.pidfile == str(layout.supervisor_pid)


def test_the_services_are_replaced_and_the_infrastructure_stays(tmp_path: Path) -> None:
    layout = Layout(root=tmp_path, run=tmp_path)
    kafka, learner = Program("kafka", INFRASTRUCTURE, ("/bin/a",), {}), Program("learner", SERVICES, ("/bin/b",), {})
    further = Program("learner-1", SERVICES, ("/bin/c",), {})
    one, two = render(layout, [kafka, learner]), render(layout, [kafka, learner, further])
    assert replaced(one, layout, SERVICES, [learner, further]) == two
    assert replaced(two, layout, SERVICES, [learner]) == one


@pytest.mark.parametrize("name", ["short", "deep/" * 30])
def test_the_control_socket_always_has_a_path_that_a_socket_can_have(tmp_path: Path, name: str) -> None:
    layout = Layout(run=tmp_path / name)
    assert len(str(layout.supervisor_socket)) + len(".4194304") <= LONGEST_SOCKET_PATH
    assert (layout.supervisor_socket.parent == layout.run) == (name == "short")


def test_the_stack_has_the_six_services_behind_the_infrastructure() -> None:
    names = ["kafka", "redis", "triton", "features", "gateway", "outcomes", "learner", "rollout", "monitor"]
    assert Stack().names == names
