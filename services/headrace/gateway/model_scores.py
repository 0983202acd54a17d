"""Scores of rows from one version, through the batches of the models."""

from __future__ import annotations

import asyncio

import numpy as np
import numpy.typing as npt

from headrace.gateway.batch_queues import Priority
from headrace.gateway.batching import Batcher
from headrace.gateway.inference import ScoredRows
from headrace.gateway.routing import Choice, Routing
from headrace.pipeline.events import FloatArray

ModelBatcher = Batcher[Choice, npt.NDArray[np.float32], ScoredRows]


class ModelScores:
    """Scores rows.

    Args:
        routing: told which versions are in use.
        batches: puts rows of several askers together.
    """

    def __init__(self, routing: Routing, batches: ModelBatcher) -> None:
        self._routing = routing
        self._batches = batches

    async def __call__(
        self,
        choice: Choice,
        values: FloatArray,
        deadline: float | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> list[ScoredRows]:
        """Scores of rows, in order, as blocks that may have been scored by different versions.

        Args:
            choice: the version to use.
            values: feature vectors, shape (n, width).
            deadline: time of the event loop after which a score is of no use.
            priority: what goes first.

        Raises:
            GatewayError: by what the caller can do.
        """
        matrix = values.astype(np.float32)
        most = self._batches.max_rows
        with self._routing.using(choice):
            if len(matrix) <= most:
                return [await self._batches.submit(choice, matrix, len(matrix), deadline, priority)]
            parts = (matrix[first : first + most] for first in range(0, len(matrix), most))
            return await asyncio.gather(
                *(self._batches.submit(choice, part, len(part), deadline, priority) for part in parts)
            )
