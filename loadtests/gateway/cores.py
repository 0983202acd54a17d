"""The two cores that the gateway's goals speak of."""

from __future__ import annotations

import os

COUNT = 2


def bench_cores() -> frozenset[int]:
    """Two cores for everything: gateway, client, Triton, Redis and Kafka share them, and nobody has one for itself."""
    return frozenset(sorted(os.sched_getaffinity(0))[:COUNT])
