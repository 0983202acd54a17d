"""What each Triton server has loaded, and when to try again what failed there. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
LAGGING_FAILURES = 3


@dataclass
class Server:
    """What is known of one Triton server.

    Attributes:
        ready: Triton models that it serves; None while it does not answer.
        polled: whether it was asked at all since the start.
        passed: Triton models that gave the right scores since they were loaded.
        pauses: Triton model to (earliest next attempt in seconds of the caller's clock, length of the pause).
        failures: deliveries in a row that failed.
    """

    ready: frozenset[str] | None = None
    polled: bool = False
    passed: set[str] = field(default_factory=set)
    pauses: dict[str, tuple[float, float]] = field(default_factory=dict)
    failures: int = 0

    @property
    def lagging(self) -> bool:
        """Whether it answers, but takes no versions: it is not waited for."""
        return self.failures >= LAGGING_FAILURES


class TritonContents:
    """What the servers have.

    Args:
        urls: of the servers.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.servers = {url: Server() for url in urls}

    def observe(self, url: str, ready: frozenset[str] | None) -> None:
        """The Triton models that a server serves now; None when it does not answer."""
        server = self.servers[url]
        server.polled = True
        server.ready = ready
        if ready is None:
            server.failures = 0
        # A model that vanished was lost with its server or taken away: what comes back must pass again.
        server.passed &= ready or frozenset()

    def passed(self, url: str, name: str) -> None:
        """A model is loaded on a server and gave the right scores."""
        server = self.servers[url]
        if server.ready is not None:
            server.ready |= {name}
            server.passed.add(name)
        server.pauses.pop(name, None)
        server.failures = 0

    def postpone(self, url: str, name: str, now: float) -> bool:
        """A model could not be brought onto a server for now. True on the first failure of a row."""
        server = self.servers[url]
        _, pause = server.pauses.get(name, (0.0, 0.0))
        longer = min(max(FIRST_PAUSE_S, pause * 2), LONGEST_PAUSE_S)
        server.pauses[name] = (now + longer, longer)
        server.failures += 1
        return pause == 0

    def unloaded(self, url: str, name: str) -> None:
        """A model was taken off a server."""
        server = self.servers[url]
        if server.ready is not None:
            server.ready -= {name}
        server.passed.discard(name)
        server.pauses.pop(name, None)

    def replaced(self, name: str) -> None:
        """Another file is announced under a name: what passed there says nothing any more."""
        for server in self.servers.values():
            server.passed.discard(name)

    def anywhere(self, name: str) -> bool:
        """Whether some server has a model that passed."""
        return any(name in server.passed for server in self.servers.values())

    def everywhere(self, name: str) -> bool:
        """Whether every server that can have a model has it, and one at least; not before all were asked once."""
        if not all(server.polled for server in self.servers.values()):
            return False
        reachable = [server for server in self.servers.values() if server.ready is not None]
        return any(name in one.passed for one in reachable) and all(
            name in one.passed or one.lagging for one in reachable
        )
