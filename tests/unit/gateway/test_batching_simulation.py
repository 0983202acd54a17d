"""The adaptive window needs no tuning: within a tenth of the best fixed one, at each load."""

from __future__ import annotations

import pytest

from loadtests.gateway.batching import LOADS, SERVERS, compare

# The fixed windows that were best for one of these settings; loadtests/gateway/batching.py tries more.
WINDOWS = (0.25, 1.5, 3.0)


@pytest.mark.parametrize("level", LOADS)
@pytest.mark.parametrize("server", ["0.3 ms + 2 µs", "2 ms + 20 µs, two instances"])
def test_the_adaptive_window_is_near_the_best_fixed_one(server: str, level: str) -> None:
    requests = 12_000 if level == "high" else 4000
    mean, p99 = compare(SERVERS[server], LOADS[level], bursty=False, windows=WINDOWS, requests=requests).ratios
    assert mean < 1.1
    assert p99 < 1.15
