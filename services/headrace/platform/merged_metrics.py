"""The `/metrics` pages of several processes as one page.

Counters and histograms are added up, those of processes that have ended too, so that a total never goes down. A gauge
belongs to its process and gets the label `process`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

ADDED_UP = ("counter", "histogram", "summary")
LABEL = "process"

_Labels = tuple[tuple[str, str], ...]


class MergedMetrics:
    """Pages of processes that come and go.

    Args:
        left_out: families whose name starts so are on no page.
    """

    def __init__(self, *, left_out: tuple[str, ...] = ()) -> None:
        self._left_out = left_out
        self._pages: dict[str, list[Metric]] = {}
        self._ended: list[Metric] = []

    def update(self, process: str, page: str) -> None:
        """Take the latest page of a process, as Prometheus text."""
        self._pages[process] = [
            family
            for family in text_string_to_metric_families(page)
            if not family.name.endswith("_created") and not family.name.startswith(self._left_out or ("\0",))
        ]

    def end(self, process: str) -> None:
        """A process has ended: its totals stay, its gauges go."""
        families = self._pages.pop(process, [])
        totals = [family for family in families if family.type in ADDED_UP]
        self._ended = list(_merged({"": [*self._ended, *totals]}))

    def page(self) -> bytes:
        """The page of all, as Prometheus text."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(_merged({"": self._ended} | self._pages)))
        return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def _merged(pages: Mapping[str, Iterable[Metric]]) -> Iterator[Metric]:
    described: dict[tuple[str, str], str] = {}
    values: dict[tuple[str, str], dict[tuple[str, _Labels], float]] = defaultdict(lambda: defaultdict(float))
    for process, families in pages.items():
        for family in families:
            key = (family.name, family.type)
            described.setdefault(key, family.documentation)
            for sample in family.samples:
                if sample.name.endswith("_created"):
                    continue
                labels = tuple(sample.labels.items())
                if family.type in ADDED_UP:
                    values[key][sample.name, labels] += sample.value
                else:
                    values[key][sample.name, (*labels, (LABEL, process))] = sample.value
    for (name, kind), documentation in sorted(described.items()):
        merged = Metric(name, documentation, kind)
        for (sample_name, labels), value in values[name, kind].items():
            merged.add_sample(sample_name, dict(labels), value)
        yield merged
