"""A server that is away costs one attempt per rest."""

from __future__ import annotations

from headrace.gateway.circuit_breaker import CircuitBreaker


def test_after_a_failure_one_call_per_rest_finds_out() -> None:
    now = 0.0
    breaker = CircuitBreaker(0.5, lambda: now)
    assert breaker.allows()
    breaker.failed()
    assert breaker.is_open
    assert not breaker.allows()
    now = 0.6
    assert breaker.allows()
    assert not breaker.allows()
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.allows()
    assert breaker.allows()
