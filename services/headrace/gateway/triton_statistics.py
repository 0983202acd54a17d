"""Triton's own times, of its queue and of the model, as metrics beside those of the gateway."""

from __future__ import annotations

from collections.abc import Container, Iterable

from headrace.gateway.metrics import TRITON_EXECUTION_ROWS, TRITON_REQUESTS, TRITON_ROWS, TRITON_STAGE_TIME
from headrace.gateway.triton_server import ModelCounts

_GAUGES = (TRITON_REQUESTS, TRITON_ROWS, TRITON_EXECUTION_ROWS, TRITON_STAGE_TIME)


class ServerStatistics:
    """Exports what one server did between two looks.

    A server counts from the moment when it loaded a model, for all of its clients. What is exported are differences
    between two looks, so that a server that was restarted does not take anything back.

    Args:
        server: its address, for the label.
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._last: dict[str, ModelCounts] | None = None
        self._exported: set[str] = set()

    def update(self, counts: Iterable[ModelCounts], exported: Container[str]) -> None:
        """Take what the server has counted up to now.

        Args:
            counts: one for each model that is loaded; those that have gone lose their metrics.
            exported: names of the models to export: a server may have those of others too.
        """
        now = {one.model: one for one in counts}
        if self._last is not None:
            for model, one in now.items():
                if model in exported:
                    self._export(one, self._last.get(model))
        self._last = now
        self._remove(self._exported - now.keys())

    def close(self) -> None:
        """Take the metrics of this server away."""
        self._remove(self._exported)
        self._last = None

    def _export(self, now: ModelCounts, before: ModelCounts | None) -> None:
        # Less than before: the model was loaded anew in between, and all that it has counted is new.
        if before is None or now.requests < before.requests or now.failures < before.failures:
            before = ModelCounts(now.model)
        labels = self._server, now.model
        requests, rows = now.requests - before.requests, now.rows - before.rows
        TRITON_REQUESTS.labels(*labels, "success").set(requests)
        TRITON_REQUESTS.labels(*labels, "failure").set(now.failures - before.failures)
        TRITON_ROWS.labels(*labels).set(rows)
        TRITON_EXECUTION_ROWS.labels(*labels).set(rows / max(1, now.executions - before.executions))
        spent = {
            "queue": now.queue_s - before.queue_s,
            "input": now.input_s - before.input_s,
            "infer": now.infer_s - before.infer_s,
            "output": now.output_s - before.output_s,
        }
        for stage, seconds in spent.items():
            TRITON_STAGE_TIME.labels(*labels, stage).set(seconds / max(1, requests))
        self._exported.add(now.model)

    def _remove(self, models: set[str]) -> None:
        for model in list(models):
            self._exported.discard(model)
            for gauge in _GAUGES:
                gauge.remove_by_labels({"server": self._server, "model": model})
