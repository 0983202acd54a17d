"""What the live gateways use, by their leases. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Lease(Protocol):
    """What one live gateway process uses."""

    @property
    def epoch(self) -> int:
        """Epoch of the route table in use."""

    @property
    def versions(self) -> frozenset[str]:
        """Versions that requests may still be sent to."""


class LiveLeases:
    """The leases as they were read last.

    Args:
        grace_s: without any live lease, nothing counts as unused for this many seconds: leases come back within it
            after Redis lost them.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._leases: Sequence[Lease] | None = None
        self._none_since: float | None = None

    def observe(self, leases: Sequence[Lease] | None, now: float) -> None:
        """The live leases; None while they cannot be read. `now` in seconds of a monotonic clock."""
        self._leases = leases
        if leases is None or leases:
            self._none_since = None
        elif self._none_since is None:
            self._none_since = now

    def adopted(self, epoch: int) -> bool:
        """Whether every live gateway, and at least one, uses a table of this epoch or a later one."""
        return bool(self._leases) and all(lease.epoch >= epoch for lease in self._leases or ())

    def passed(self, version: str, epoch: int, now: float) -> bool:
        """Whether no live gateway can send anything to a version that the table of this epoch does not name."""
        if self._leases is None:
            return False
        if not self._leases:
            return self._none_since is not None and now - self._none_since >= self._grace_s
        return all(lease.epoch >= epoch and version not in lease.versions for lease in self._leases)
