"""Which server gets a batch, which one rests, and when it is tried again. Pure: the clock is injected."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from headrace.gateway.triton_errors import TritonError
from headrace.platform.triton_config import FeatureIdentity

Clock = Callable[[], float]
"""Monotonic seconds."""


@dataclass(frozen=True)
class BalancingPolicy:
    """When a server is ejected and for how long.

    Attributes:
        rest_s: rest after the first failure, in seconds; it doubles with each further one.
        longest_rest_s: the most it grows to, in seconds.
        settled_s: after so long without a failure the next rest is a first one again, in seconds.
        timeouts_in_a_row: short deadlines that a server may miss one after the other. One that misses the whole
            timeout is ejected at once.
        errors_in_a_row: errors that a model may give on a server one after the other.
        slow_factor: how many times slower than the median of the others a server may be.
        slow_floor_s: difference below which that does not matter, in seconds.
        slow_calls: calls to judge by.
    """

    rest_s: float = 0.25
    longest_rest_s: float = 2.0
    settled_s: float = 10.0
    timeouts_in_a_row: int = 3
    errors_in_a_row: int = 5
    slow_factor: float = 5.0
    slow_floor_s: float = 0.02
    slow_calls: int = 32


class RetryBudget:
    """Lets a share of the calls be retried, and some more at once, so that retries never multiply an outage.

    Args:
        ratio: retries for each call.
        burst: retries that may come at once after a quiet time.

    Notes:
        A token bucket that calls fill, as in gRPC's retry throttling (gRFC A6).
    """

    def __init__(self, ratio: float = 0.2, burst: float = 20.0) -> None:
        self._ratio = ratio
        self._burst = burst
        self._left = burst

    def called(self) -> None:
        """A call began that is no retry."""
        self._left = min(self._burst, self._left + self._ratio)

    def take(self) -> bool:
        """Whether one more retry is allowed; counts it."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Rest:
    """Something that failed is left alone for a while, longer with each failure in a row.

    Args:
        policy: how long.
        clock: the time.

    Attributes:
        resting: whether it is left alone.
        due: when it may be tried again, on the clock.
    """

    def __init__(self, policy: BalancingPolicy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._failures = 0
        self._back_at = clock()
        self.resting = False
        self.due = 0.0

    def begin(self) -> None:
        """It failed, or failed again."""
        now = self._clock()
        if not self.resting and now - self._back_at >= self._policy.settled_s:
            self._failures = 0
        self.due = now + min(self._policy.rest_s * 2.0**self._failures, self._policy.longest_rest_s)
        self._failures = min(self._failures + 1, 30)
        self.resting = True

    def end(self) -> None:
        """It works again."""
        if self.resting:
            self.resting = False
            self._back_at = self._clock()

    def is_due(self) -> bool:
        """Whether it rests and may be tried now."""
        return self.resting and self._clock() >= self.due


@dataclass(eq=False)
class ModelOnServer:
    """One model on one server.

    Attributes:
        rest: from asking for it.
        checked: what it was last checked against; None where it has to be checked before the next row.
        fault: why it rests.
        errors: it gave, one after the other.
        used_at: when it was last asked for, on the clock.
    """

    rest: Rest
    checked: FeatureIdentity | None = None
    fault: TritonError | None = None
    errors: int = 0
    used_at: float = 0.0


@dataclass(eq=False)
class Member:
    """One server as the balancer sees it.

    Attributes:
        name: its address.
        rest: from everything.
        outstanding_rows: sent and not answered.
        reason: why it rests: "away", "slow".
        timeouts: short deadlines that it missed one after the other.
        seconds: of a call, smoothed.
        calls: answered since it is back.
        models: what is known of its models, by name.
    """

    name: str
    rest: Rest
    outstanding_rows: int = 0
    reason: str = ""
    timeouts: int = 0
    seconds: float = 0.0
    calls: int = 0
    models: dict[str, ModelOnServer] = field(default_factory=dict)


class Balancer:
    """Chooses the server with the fewest outstanding rows; of several, each in turn.

    Args:
        names: addresses of the servers.
        policy: when they are ejected.
        clock: the time.
    """

    def __init__(self, names: Sequence[str], policy: BalancingPolicy, clock: Clock) -> None:
        self.policy = policy
        self._clock = clock
        self.members = [Member(name, Rest(policy, clock)) for name in names]
        self._turn = 0

    def choose(self, model: str, without: Collection[Member] = ()) -> Member | None:
        """The server to send the next batch to, or None where no server takes the model now.

        Args:
            model: name of the Triton model.
            without: servers that were tried already.
        """
        members = self.members
        count = len(members)
        self._turn = (self._turn + 1) % count
        best: Member | None = None
        for i in range(count):
            member = members[(self._turn + i) % count]
            if member.rest.resting or member in without:
                continue
            known = member.models.get(model)
            if known is not None and known.rest.resting:
                continue
            if best is None or member.outstanding_rows < best.outstanding_rows:
                best = member
        return best

    def others_serve(self, member: Member) -> bool:
        """Whether a server that does not rest is left beside this one."""
        return any(other is not member and not other.rest.resting for other in self.members)

    def model(self, member: Member, model: str) -> ModelOnServer:
        """What is known of a model on a server."""
        known = member.models.get(model)
        if known is None:
            known = member.models[model] = ModelOnServer(Rest(self.policy, self._clock))
        known.used_at = self._clock()
        return known

    def forget_unused(self, for_s: float) -> None:
        """Forget models that nobody has asked for lately: versions come and go."""
        oldest = self._clock() - for_s
        for member in self.members:
            for name in [name for name, known in member.models.items() if known.used_at < oldest]:
                del member.models[name]

    def faults(self, model: str) -> list[TritonError]:
        """Why a model rests on servers that do not rest themselves."""
        found = [one.models.get(model) for one in self.members if not one.rest.resting]
        return [known.fault for known in found if known is not None and known.rest.resting and known.fault]

    def eject(self, member: Member, reason: str) -> None:
        """Send nothing to a server until it is back; what is known of its models is forgotten."""
        member.rest.begin()
        member.reason = reason
        member.models.clear()

    def back(self, member: Member) -> None:
        """A server that rested works again."""
        member.rest.end()
        member.reason = ""
        member.timeouts = member.calls = 0
        member.seconds = 0.0

    def answered(self, member: Member, model: ModelOnServer, seconds: float) -> bool:
        """A call succeeded.

        Args:
            seconds: it took.

        Returns:
            Whether the server is so much slower than the others that it should rest.
        """
        member.timeouts = model.errors = 0
        member.calls += 1
        # Of the first calls the plain mean, so that one slow first call does not weigh for long.
        member.seconds += (seconds - member.seconds) / min(member.calls, self.policy.slow_calls)
        return len(self.members) > 1 and member.calls % self.policy.slow_calls == 0 and self._is_slow(member)

    def timed_out(self, member: Member, *, whole: bool) -> bool:
        """A call was not answered in its time.

        Args:
            whole: whether that was all the time that a server gets, not a shorter deadline of the caller.

        Returns:
            Whether the server should rest.
        """
        member.timeouts += 1
        return whole or member.timeouts >= self.policy.timeouts_in_a_row

    def model_failed(self, model: ModelOnServer, fault: TritonError, *, at_once: bool) -> bool:
        """A model on a server gave no scores while the server itself answers.

        Args:
            at_once: whether one failure is enough to leave it alone: it is not there, or not the right one.

        Returns:
            Whether it rests from now on.
        """
        if model.rest.resting:
            return False
        model.errors += 1
        if not at_once and model.errors < self.policy.errors_in_a_row:
            return False
        model.errors = 0
        model.checked = None
        model.fault = fault
        model.rest.begin()
        return True

    def _is_slow(self, member: Member) -> bool:
        others = [
            other.seconds
            for other in self.members
            if other is not member and not other.rest.resting and other.calls >= self.policy.slow_calls
        ]
        if not others:
            return False
        usual = statistics.median(others)
        return member.seconds > max(usual * self.policy.slow_factor, usual + self.policy.slow_floor_s)
