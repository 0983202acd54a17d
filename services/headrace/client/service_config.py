"""gRPC's service config: what is retried, how often, and how addresses are balanced. Pure.

Retrying is safe: an event carries its id, and the same id gets the first answer again, within the gateway's
idempotency window.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace.client.calls import PREDICTIONS, STREAM_PREDICT, UNARY

MAX_ATTEMPTS = 5
"""gRPC makes no more, whatever is asked for."""


@dataclass(frozen=True)
class Retry:
    """How a call is tried again, within its deadline.

    A gateway that refuses a call for load (RESOURCE_EXHAUSTED) says when to come back, and this is honoured; a gateway
    that cannot be reached or is about to end (UNAVAILABLE) is tried again after a random part of the back-off.

    Attributes:
        max_attempts: with the first one, 2 to 5.
        initial_backoff_s: before the second attempt, in seconds.
        max_backoff_s: the longest, in seconds.
        multiplier: of the back-off from one attempt to the next.
        throttle_tokens: a channel stops retrying when half of its tokens are gone; a failure costs one.
        throttle_ratio: tokens that a success gives back.
    """

    max_attempts: int = 5
    initial_backoff_s: float = 0.05
    max_backoff_s: float = 1.0
    multiplier: float = 2.0
    throttle_tokens: int = 100
    throttle_ratio: float = 0.1

    def __post_init__(self) -> None:
        if not 2 <= self.max_attempts <= MAX_ATTEMPTS:
            raise ValueError(f"max_attempts is {self.max_attempts}; allowed are 2 to {MAX_ATTEMPTS}, None for no retry")
        if not 0 < self.initial_backoff_s <= self.max_backoff_s:
            raise ValueError("back-off must be above 0 s, and the initial one at most the longest")
        if not (self.multiplier > 0 and 1 <= self.throttle_tokens <= 1000 and self.throttle_ratio > 0):
            raise ValueError("multiplier and throttle_ratio must be above 0, throttle_tokens 1 to 1000")


def service_config(retry: Retry | None, *, wait_for_ready: bool, balance: bool) -> str:
    """The service config as JSON.

    Args:
        retry: None for no retry.
        wait_for_ready: whether a call waits for a connection until its deadline instead of failing at once.
        balance: whether to go round all addresses whose gateway says that it is serving.
    """
    names: Sequence[dict[str, str]] = [{"service": one.service, "method": one.name} for one in UNARY]
    method: dict[str, Any] = {"name": names, "waitForReady": wait_for_ready}
    config: dict[str, Any] = {"methodConfig": [method]}
    if retry is not None:
        method["retryPolicy"] = {
            "maxAttempts": retry.max_attempts,
            "initialBackoff": f"{retry.initial_backoff_s:g}s",
            "maxBackoff": f"{retry.max_backoff_s:g}s",
            "backoffMultiplier": retry.multiplier,
            # A call that reaches a server at the moment of its end is cancelled by gRPC itself, unseen by any handler.
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
        }
        config["retryThrottling"] = {"maxTokens": retry.throttle_tokens, "tokenRatio": retry.throttle_ratio}
    # A stream is opened again by the client itself, which knows what is unanswered.
    stream = {"service": STREAM_PREDICT.service, "method": STREAM_PREDICT.name}
    config["methodConfig"].append({"name": [stream], "waitForReady": wait_for_ready})
    if balance:
        config["loadBalancingConfig"] = [{"round_robin": {}}]
        config["healthCheckConfig"] = {"serviceName": PREDICTIONS}
    return json.dumps(config)
