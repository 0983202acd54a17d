"""Prometheus metrics with names that follow one rule: `headrace_<what>_<unit>`, counters end in `_total`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

PREFIX = "headrace_"
UNITS = ("seconds", "bytes", "rows", "events", "records", "ratio", "offsets", "info", "versions", "epoch", "requests")

LATENCY_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds for the time that a request takes, in seconds."""

AGE_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 3600.0, 21600.0, 86400.0)
"""Upper bounds for the age of features and models, in seconds."""


def counter(
    name: str, documentation: str, labels: Sequence[str] = (), *, registry: CollectorRegistry = REGISTRY
) -> Counter:
    """A counter, `headrace_<name>_total`; `name` ends in what is counted ("gateway_predictions")."""
    return Counter(PREFIX + name.removesuffix("_total"), documentation, labels, registry=registry)


def gauge(
    name: str, documentation: str, labels: Sequence[str] = (), *, registry: CollectorRegistry = REGISTRY
) -> Gauge:
    """A gauge, `headrace_<name>`; `name` ends in its unit, one of `UNITS`.

    Raises:
        ValueError: the name does not say its unit.
    """
    return Gauge(PREFIX + _with_unit(name), documentation, labels, registry=registry)


def histogram(
    name: str,
    documentation: str,
    labels: Sequence[str] = (),
    *,
    buckets: Sequence[float] = LATENCY_BUCKETS_S,
    registry: CollectorRegistry = REGISTRY,
) -> Histogram:
    """A histogram, `headrace_<name>`; `name` ends in its unit, one of `UNITS`, which is that of `buckets` too.

    Raises:
        ValueError: the name does not say its unit.
    """
    return Histogram(PREFIX + _with_unit(name), documentation, labels, buckets=tuple(buckets), registry=registry)


def _with_unit(name: str) -> str:
    if not name.endswith(UNITS):
        raise ValueError(f"metric {name!r} does not say its unit: it must end in one of {', '.join(UNITS)}")
    return name
