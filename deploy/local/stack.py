"""The stack: Kafka, Redis, Triton and the services, supervised, on the loopback ports of :class:`Ports`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.local import infrastructure, services, triton_server
from deploy.local.downloads import Say, alone
from deploy.local.errors import StackError
from deploy.local.launch import read_environment
from deploy.local.layout import Layout, Ports
from deploy.local.processes import end_processes, marked_processes, port_holder, port_is_free
from deploy.local.supervisord import INFRASTRUCTURE, SERVICES, Program, ProgramState, Supervisor, last_lines

#: Seconds until a service must be ready after its start.
SERVICE_DEADLINE = 120.0

#: Seconds after which a program that has only ever ended is not tried on, when the stack starts.
FAILING_START = 15.0

#: Seconds until everything must have ended: a service may drain for 30, then the infrastructure ends.
STOP_DEADLINE = 90.0

_STOPPED = {"STOPPED", "EXITED", "FATAL"}


@dataclass(frozen=True)
class ProgramStatus:
    """One line of :meth:`Stack.status`.

    ``state`` is the supervisor's name for it, ``process_id`` None where it does not run, ``uptime`` in seconds,
    ``ports`` by what they are for, ``ready`` whether it answers now.
    """

    name: str
    state: str
    process_id: int | None
    uptime: float
    ports: Mapping[str, int]
    ready: bool


class Stack:
    """One stack of programs on this machine.

    Parameters
    ----------
    layout, ports:
        Its directories and ports. Two stacks with different ones live side by side.
    say:
        Takes a line for the user about what happens now; nothing is said by default.
    """

    def __init__(self, layout: Layout | None = None, ports: Ports | None = None, say: Say = lambda line: None) -> None:
        self.layout = layout or Layout()
        self.ports = ports or Ports()
        self._say = say
        self._supervisor = Supervisor(self.layout)
        self._infrastructure = infrastructure.programs(self.ports)

    # What there is -----------------------------------------------------------------------------------------------

    def _services(self, settings: Mapping[str, str] | None = None) -> list[Program]:
        """The services as they are started with these settings; as they were last started where none are given."""
        return services.programs(self.layout, self.ports, self._last_settings() if settings is None else settings)

    def _programs(self) -> dict[str, Program]:
        return {program.name: program for program in [*self._infrastructure, *self._services()]}

    def _ready(self, program: Program) -> bool:
        if program.group == INFRASTRUCTURE:
            return infrastructure.is_ready(program, self.ports)
        return triton_server.http_ok(program.ports["operations"], "/readyz")

    # Start -------------------------------------------------------------------------------------------------------

    def start_infrastructure(self) -> list[str]:
        """Start Kafka, Redis and Triton where they do not run, and wait until they are ready.

        Returns
        -------
        The names of those that were started: none means that all of them were up already.

        Raises
        ------
        StackError
            A port is taken, something is not installed, or a program is not ready by its deadline. Nothing has been
            started when a port is taken.
        """
        with self._alone():
            self._check_ports(self._infrastructure)
            return self._start_infrastructure()

    def _start_infrastructure(self) -> list[str]:
        self.layout.make_directories()
        programs = self._infrastructure
        states = self._states()
        missing = [program for program in programs if _is_stopped(states, program)]
        if missing:
            if not states:
                prepared = infrastructure.prepare(self.layout, self.ports, self._say)
                self._supervisor.start([*prepared, *self._services()])
            for program in missing:
                if program.name == "triton":
                    triton_server.remove_shared_memory(self.layout)
                self._supervisor.start_program(program)
            self._say(f"starting {_names(missing)}")
        self._wait_ready(programs, first_start=True)
        return [program.name for program in missing]

    def start_services(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the services with these settings and wait until each says that it is ready.

        ``HEADRACE_LEARNER_SHARDS`` says how many learners there are. Services that run are stopped first, so that all
        of them have the same settings. The topics are created before the start. The infrastructure is started where
        it is not up.

        Parameters
        ----------
        environment:
            Settings by their variable (``HEADRACE_…``). They go before those of the caller's own environment, which
            go before the stack's.

        Raises
        ------
        StackError
            As :meth:`start_infrastructure`; a setting that no variable can hold; the topics cannot be created; or a
            service is not ready by its deadline, with the end of its log.
        """
        with self._alone():
            self._start_services(environment or {})

    def _start_services(self, settings: Mapping[str, str]) -> list[str]:
        """Start what is to be up with these settings; returns what was started."""
        environment = services.complete_environment(self.layout, self.ports, settings)
        programs = self._services(environment)
        self._check_ports([*self._infrastructure, *programs])
        started = self._start_infrastructure()
        self._stop_programs(self._services())
        if {program.name for program in [*self._infrastructure, *programs]} != set(self._states()):
            self._supervisor.replace_group(SERVICES, programs)
        services.write_environment(self.layout, environment)
        self._create_topics(environment)
        self._say(f"starting {_names(programs)}")
        for program in programs:
            self._supervisor.start_program(program)
        try:
            self._wait_ready(programs, first_start=True)
        except StackError:
            # A wrong setting, most likely: it must not be tried on and on, nor be what a next start finds running.
            self._stop_programs(programs)
            raise
        return started + [program.name for program in programs]

    def up(self, settings: Mapping[str, str] | None = None) -> list[str]:
        """Start what does not run, infrastructure and services, and wait until all of it is ready.

        Unlike :meth:`start_services` this leaves services alone that run already.

        Returns
        -------
        The names of what was started: none means that everything was up.
        """
        with self._alone():
            states = self._states()
            if any(_is_stopped(states, program) for program in self._services()):
                return self._start_services(settings or {})
            started = self._start_infrastructure()
            self._wait_ready(self._services())
            return started

    def _create_topics(self, environment: Mapping[str, str]) -> None:
        self._say("creating the topics")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "headrace.cli", "topics", "create"],
                cwd=self.layout.root,
                env=services.process_environment(environment),
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
            )
        except subprocess.TimeoutExpired as error:
            raise StackError("creating the topics took more than 60 s") from error
        if done.returncode:
            raise StackError(f"the topics were not created:\n{(done.stderr or done.stdout).strip()[-2000:]}")

    # Stop --------------------------------------------------------------------------------------------------------

    def stop_services(self) -> None:
        """Stop the services and wait until their processes have ended; the infrastructure goes on."""
        with self._alone():
            if self._states():
                self._stop_programs(self._services())

    def _stop_programs(self, programs: Sequence[Program]) -> None:
        states = self._states()
        for program in programs:
            if not _is_stopped(states, program):
                self._supervisor.stop_program(program)

        def stopped() -> bool:
            states = self._states()
            return all(_is_stopped(states, program) for program in programs)

        _wait(stopped, STOP_DEADLINE, lambda: f"not stopped after {STOP_DEADLINE:.0f} s: {_names(programs)}")

    def stop(self) -> bool:
        """Stop everything: the services, the infrastructure and the supervisor. Data and logs stay.

        Returns
        -------
        Whether anything was running.

        Raises
        ------
        StackError
            A process of this stack has outlived even being killed.
        """
        with self._alone():
            was_running = self._supervisor.running()
            if was_running:
                self._say("stopping the services, then Kafka, Redis and Triton")
                self._supervisor.shut_down(patience=STOP_DEADLINE)
            # Programs whose supervisor was killed, and children that left their group.
            left = marked_processes(self.layout.run)
            if left:
                self._say(f"ending what was left running: {', '.join(f'pid {process.id}' for process in left)}")
                end_processes(left)
            if still := marked_processes(self.layout.run):
                raise StackError(
                    "still running:\n" + "\n".join(f"  pid {process.id}: {process.command}" for process in still)
                )
            triton_server.remove_shared_memory(self.layout)
            return was_running or bool(left)

    # Look --------------------------------------------------------------------------------------------------------

    def status(self) -> list[ProgramStatus]:
        """Every program of the stack, running or not."""
        states = self._states()
        return [
            ProgramStatus(
                name=program.name,
                state=states[program.name].state if program.name in states else "STOPPED",
                process_id=(states[program.name].process_id or None) if program.name in states else None,
                uptime=states[program.name].uptime if program.name in states else 0.0,
                ports=program.ports,
                ready=not _is_stopped(states, program) and self._ready(program),
            )
            for program in self._programs().values()
        ]

    def process_id(self, name: str) -> int:
        """The process id of a program that runs.

        Raises
        ------
        StackError
            There is no program of this name, or it does not run at this moment.
        """
        self._program(name)
        state = self._states().get(name)
        if state is None or not state.process_id:
            raise StackError(f"{name} does not run{f' ({state.state})' if state else ''}")
        return state.process_id

    def wait_ready(self, name: str) -> None:
        """Wait until the program of this name is ready, after it was killed for example.

        Raises
        ------
        StackError
            It is not ready by its deadline, or the supervisor has given it up.
        """
        self._wait_ready([self._program(name)])

    def _program(self, name: str) -> Program:
        programs = self._programs()
        if name not in programs:
            raise StackError(f"no program {name!r}: there are {', '.join(programs)}")
        return programs[name]

    @property
    def names(self) -> list[str]:
        """The names of the programs."""
        return list(self._programs())

    def services_environment(self) -> dict[str, str]:
        """The settings that the services were last started with; those of the stack where they never were."""
        return self._last_settings() or services.base_environment(self.layout, self.ports)

    def _last_settings(self) -> dict[str, str]:
        file = self.layout.services_environment
        return read_environment(str(file)) if file.exists() else {}

    # How ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One start or stop of this stack at a time, whichever process asks for it."""
        with alone(self.layout.run / "stack.lock"):
            yield

    def _states(self) -> dict[str, ProgramState]:
        """What the supervisor says; nothing where it does not run."""
        return self._supervisor.states() if self._supervisor.running() else {}

    def _check_ports(self, wanted: Sequence[Program]) -> None:
        """Name every port that a program which is not running would not get, before anything is started."""
        states = self._states()
        programs = [program for program in wanted if _is_stopped(states, program)]
        ours = {process.id for process in marked_processes(self.layout.run)}
        taken = []
        for program in programs:
            for use, port in program.ports.items():
                if port_is_free(port):
                    continue
                holder = port_holder(port)
                if holder is None:
                    by = "a process that this user cannot see"
                elif holder.id in ours:
                    by = f"pid {holder.id}, left from an earlier start of this stack: stop it with `make down`"
                else:
                    by = f"pid {holder.id} ({holder.command})"
                taken.append(f"port {port} ({program.name}, {use}) is taken by {by}")
        if taken:
            raise StackError("\n".join(taken))

    def _wait_ready(self, programs: Sequence[Program], *, first_start: bool = False) -> None:
        started = time.monotonic()
        waiting = list(programs)
        while waiting:
            states = self._states()
            for program in list(waiting):
                log = self.layout.logs / f"{program.name}.log"
                state = states.get(program.name)
                problem = None
                if state is None:
                    problem = "the supervisor has ended"
                elif state.state == "FATAL":
                    problem = "it has been tried many times"
                elif first_start and state.state == "BACKOFF" and time.monotonic() - started > FAILING_START:
                    # What it needs is ready, so it is not waiting for something that comes back, as after a kill.
                    problem = "it ends as soon as it is started"
                if state is None or problem:
                    raise StackError(f"{program.name} does not start: {problem}; {log} ends with:\n{last_lines(log)}")
                if state.state in {"RUNNING", "STARTING"} and self._ready(program):
                    waiting.remove(program)
                    continue
                deadline = infrastructure.DEADLINES.get(program.name, SERVICE_DEADLINE)
                if time.monotonic() - started > deadline:
                    raise StackError(
                        f"{program.name} is not ready after {deadline:.0f} s ({state.state}); "
                        f"{log} ends with:\n{last_lines(log)}"
                    )
            if waiting:
                time.sleep(0.05)


def _is_stopped(states: Mapping[str, ProgramState], program: Program) -> bool:
    return program.name not in states or states[program.name].state in _STOPPED


def _names(programs: Sequence[Program]) -> str:
    return ", ".join(program.name for program in programs)


def _wait(condition: Callable[[], bool], deadline: float, problem: Callable[[], str]) -> None:
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise StackError(problem())
        time.sleep(0.05)
