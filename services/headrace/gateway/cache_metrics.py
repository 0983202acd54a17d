"""What the caches of this process have seen, read when Prometheus asks: the caches themselves pay nothing for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from headrace.gateway.bounded_cache import CacheCounts
from headrace.platform.metrics import PREFIX


class Measured(Protocol):
    """A cache."""

    @property
    def counts(self) -> CacheCounts:
        """What it has seen."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries."""

    def __len__(self) -> int:
        """Number of entries."""


class CacheMetrics(Collector):
    """Reads the caches.

    Args:
        registry: where the metrics are.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._caches: dict[str, Measured] = {}
        registry.register(self)

    def watch(self, name: str, cache: Measured) -> None:
        """Report a cache, in place of an earlier one of this name."""
        self._caches[name] = cache

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now; the hit rate is hits / (hits + misses)."""
        lookups = CounterMetricFamily(
            f"{PREFIX}gateway_cache_lookups", "Look-ups, by cache and result.", labels=("cache", "result")
        )
        evictions = CounterMetricFamily(
            f"{PREFIX}gateway_cache_evictions", "Entries that left for others, by cache.", labels=("cache",)
        )
        size = GaugeMetricFamily(f"{PREFIX}gateway_cache_bytes", "Bytes of all entries, by cache.", labels=("cache",))
        entries = GaugeMetricFamily(f"{PREFIX}gateway_cache_entries", "Entries, by cache.", labels=("cache",))
        for name, cache in self._caches.items():
            lookups.add_metric((name, "hit"), cache.counts.hits)
            lookups.add_metric((name, "miss"), cache.counts.misses)
            evictions.add_metric((name,), cache.counts.evictions)
            size.add_metric((name,), cache.size_bytes)
            entries.add_metric((name,), len(cache))
        yield from (lookups, evictions, size, entries)


CACHES = CacheMetrics()
"""The caches of this process."""
