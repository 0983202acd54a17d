"""Triton's own times, of its queue and of the model, as metrics beside those of the gateway."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.gateway.metrics import TRITON_EXECUTIONS, TRITON_REQUESTS, TRITON_ROWS, TRITON_STAGE_TIME
from headrace.gateway.triton_server import ModelCounts

_STAGES = ("queue", "input", "infer", "output")


class ServerStatistics:
    """Exports what one server counts.

    A server counts from the moment when it loaded a model, for all of its clients; what is exported are differences, so
    that a server that was restarted does not take anything back. What it counted before this process looked first
    is left out.

    Args:
        server: its address, for the label.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._last: dict[str, ModelCounts] | None = None

    def update(self, counts: Iterable[ModelCounts]) -> None:
        """Take what the server has counted up to now.

        Args:
            counts: one for each model that is loaded; those that have gone lose their metrics.
        """
        now = {one.model: one for one in counts}
        if self._last is not None:
            for model, one in now.items():
                self._add(one, self._last.get(model))
            for model in self._last.keys() - now.keys():
                self._remove(model)
        self._last = now

    def close(self) -> None:
        """Take the metrics of this server away."""
        for model in self._last or ():
            self._remove(model)
        self._last = None

    def _add(self, now: ModelCounts, before: ModelCounts | None) -> None:
        # Less than before: the model was loaded anew in between, and all that it has counted is new.
        if before is None or now.requests < before.requests or now.failures < before.failures:
            before = ModelCounts(now.model, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0)
        labels = self._server, now.model
        TRITON_REQUESTS.labels(*labels, "success").inc(now.requests - before.requests)
        TRITON_REQUESTS.labels(*labels, "failure").inc(now.failures - before.failures)
        TRITON_ROWS.labels(*labels).inc(max(0, now.rows - before.rows))
        TRITON_EXECUTIONS.labels(*labels).inc(max(0, now.executions - before.executions))
        spent = zip(now[-len(_STAGES) :], before[-len(_STAGES) :], strict=True)
        for stage, (new, old) in zip(_STAGES, spent, strict=True):
            TRITON_STAGE_TIME.labels(*labels, stage).inc(max(0.0, float(new) - float(old)))

    def _remove(self, model: str) -> None:
        TRITON_ROWS.remove_by_labels({"server": self._server, "model": model})
        TRITON_EXECUTIONS.remove_by_labels({"server": self._server, "model": model})
        TRITON_REQUESTS.remove_by_labels({"server": self._server, "model": model})
        TRITON_STAGE_TIME.remove_by_labels({"server": self._server, "model": model})
