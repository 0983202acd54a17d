"""Scores from several Triton servers: balanced by outstanding rows, around those that are away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headrace.gateway.metrics import TRITON_HEDGES, TRITON_RETRIES
from headrace.gateway.triton_balancing import Member, RetryBudget
from headrace.gateway.triton_errors import (
    ModelMismatchError,
    ModelNotLoadedError,
    TritonAwayError,
    TritonError,
    TritonTimeoutError,
)
from headrace.gateway.triton_health import TritonHealth
from headrace.platform.triton_config import FeatureIdentity

Matrix = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]

# A deadline that is nearer is not worth a call.
_SHORTEST_S = 0.001


class TritonPool:
    """Sends each batch to the server with the fewest outstanding rows.

    A server that does not answer is left alone: calls under way there go to another at once, and it is asked again
    after a rest that grows, with a trial call, by `run`. Before the first row of a version goes to a server, what that
    server declares of it is compared with what is expected; so also when it is back or was connected anew.

    Make it in a running event loop, have `run` running, and close it in the end.

    Args:
        urls: gRPC addresses, host:port.
        timeout_s: how long a batch may take on one server, in seconds.
        probe_s: the first rest of a server that is away, in seconds.
        health_s: time between two looks at a server that answers, in seconds.
        hedge_s: after this time without an answer a batch goes to a second server too, in seconds; 0 never does.
        keepalive_s: time between two pings on a quiet connection, in seconds; 0 sends none.
        statistics_s: time between two readings of Triton's own times, in seconds; 0 reads none.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        timeout_s: float,
        probe_s: float,
        health_s: float = 1.0,
        hedge_s: float = 0.0,
        keepalive_s: float = 10.0,
        statistics_s: float = 5.0,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._health = TritonHealth(
            urls,
            timeout_s=timeout_s,
            probe_s=probe_s,
            health_s=health_s,
            keepalive_s=keepalive_s,
            statistics_s=statistics_s,
        )
        self._balancer = self._health.balancer
        self._timeout_s = timeout_s
        self._hedge_s = hedge_s
        self._budget = RetryBudget()

    @property
    def away(self) -> list[str]:
        """Servers that nothing is sent to now."""
        return self._health.away

    @property
    def outstanding_rows(self) -> dict[str, int]:
        """Rows sent and not answered, by server."""
        return {member.name: member.outstanding_rows for member in self._balancer.members}

    async def infer(
        self,
        model_name: str,
        features: Matrix,
        deadline: float | None = None,
        expected: FeatureIdentity | None = None,
    ) -> Scores:
        """The scores of n rows, shape (n,).

        To score twice changes nothing, so a batch that a server lost, or has no model for, goes to another server as
        long as the deadline and the retry budget allow.

        Args:
            model_name: name of the Triton model.
            features: shape (n, width).
            deadline: time of the event loop after which the scores are of no use; none by default.
            expected: the features that the version takes; by default only their number is checked.

        Raises:
            TritonAwayError: no server answers in time.
            ModelNotLoadedError: no server that answers has the model.
            ModelMismatchError: the servers that answer have another model of this name.
            TritonError: a server answers with an error, or with something that is no score.
        """
        features = np.ascontiguousarray(features, np.float32)
        if not len(features):
            return np.empty(0, np.float32)
        expected = expected or FeatureIdentity(features.shape[1])
        self._health.asked_for(model_name, expected)
        self._budget.called()
        tried: list[Member] = []
        failure: TritonError | None = None
        while True:
            member = self._balancer.choose(model_name, tried)
            if member is None:
                raise failure or self._nobody(model_name)
            timeout_s = self._time_for(member, deadline)
            if timeout_s < _SHORTEST_S:
                raise failure or TritonTimeoutError("the deadline passed before Triton was asked")
            if failure is not None:
                if not self._budget.take():
                    raise failure
                TRITON_RETRIES.labels(_reason(failure)).inc()
            tried.append(member)
            try:
                if self._hedge_s and self._hedge_s < timeout_s:
                    return await self._hedged(member, tried, model_name, features, timeout_s, expected)
                return await self._attempt(member, model_name, features, timeout_s, expected)
            except (TritonAwayError, ModelNotLoadedError, ModelMismatchError) as error:
                # That the model is not there says more than that another server is away.
                if not isinstance(failure, ModelNotLoadedError):
                    failure = error

    async def run(self) -> None:
        """Look after the servers until cancelled: probe, check, read statistics."""
        await self._health.run()

    async def close(self) -> None:
        """Close the connections."""
        await self._health.close()

    def _time_for(self, member: Member, deadline: float | None) -> float:
        if deadline is None:
            return self._timeout_s
        left = deadline - self._loop.time()
        # Half of it where another server could still be asked.
        return min(self._timeout_s, left / 2 if self._balancer.others_serve(member) else left)

    def _nobody(self, model: str) -> TritonError:
        faults = self._balancer.faults(model)
        for kind in (ModelNotLoadedError, ModelMismatchError, TritonError):
            for fault in faults:
                if isinstance(fault, kind):
                    # Not the same exception for everybody: it would collect the traceback of each.
                    return type(fault)(str(fault))
        return TritonAwayError(f"no Triton server answers: {', '.join(self.away)}")

    async def _attempt(
        self, member: Member, model: str, features: Matrix, timeout_s: float, expected: FeatureIdentity
    ) -> Scores:
        rows = len(features)
        member.outstanding_rows += rows
        began = self._loop.time()
        try:
            known = self._balancer.model(member, model)
            if known.checked is not expected and known.checked != expected:
                async with asyncio.timeout(timeout_s):
                    await self._health.check(member, model, expected)
                began = self._loop.time()
            scores = await self._health.server(member).infer(model, features, timeout_s)
        except (TritonTimeoutError, TimeoutError) as error:
            if self._balancer.timed_out(member, whole=timeout_s >= self._timeout_s):
                self._health.eject(member, "away", str(error) or "it does not say what it has loaded")
            if isinstance(error, TimeoutError):
                raise TritonTimeoutError(f"Triton at {member.name} did not answer in time") from error
            raise
        except TritonAwayError as error:
            self._health.eject(member, "away", str(error))
            raise
        except TritonError as error:
            self._health.model_failed(member, model, error)
            raise
        finally:
            member.outstanding_rows -= rows
        if self._balancer.answered(member, known, self._loop.time() - began):
            self._health.eject(member, "slow", f"a call takes {member.seconds:.3g} s, much more than elsewhere")
        return scores

    async def _hedged(
        self,
        first: Member,
        tried: list[Member],
        model: str,
        features: Matrix,
        timeout_s: float,
        expected: FeatureIdentity,
    ) -> Scores:
        """One attempt, and a second one on another server if the first has not answered soon."""
        attempts = {asyncio.create_task(self._attempt(first, model, features, timeout_s, expected))}
        try:
            done, _ = await asyncio.wait(attempts, timeout=self._hedge_s)
            second = None if done else self._balancer.choose(model, tried)
            if second is not None and self._budget.take():
                TRITON_HEDGES.inc()
                tried.append(second)
                left_s = timeout_s - self._hedge_s
                attempts.add(asyncio.create_task(self._attempt(second, model, features, left_s, expected)))
            while True:
                done, attempts = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    # The error of one attempt does not matter while the other may succeed.
                    if one.exception() is None or not attempts:
                        return one.result()
        finally:
            for one in attempts:
                one.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)


def _reason(failure: TritonError) -> str:
    if isinstance(failure, ModelNotLoadedError):
        return "not_loaded"
    if isinstance(failure, ModelMismatchError):
        return "mismatch"
    return "timeout" if isinstance(failure, TritonTimeoutError) else "away"
