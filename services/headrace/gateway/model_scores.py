"""Scores of rows from one version, through the batches of the models."""

from __future__ import annotations

import asyncio

import numpy as np
import numpy.typing as npt

from headrace.gateway.batch_queues import Priority
from headrace.gateway.batching import Batcher
from headrace.gateway.inference import ScoredRows
from headrace.gateway.inference_cache import InferenceCache
from headrace.gateway.routing import Choice, Routing
from headrace.pipeline.events import FloatArray

Matrix = npt.NDArray[np.float32]
ModelBatcher = Batcher[Choice, Matrix, ScoredRows]


class ModelScores:
    """Scores rows.

    Args:
        routing: told which versions are in use.
        batches: puts rows of several askers together.
        cache: of scores.
    """

    def __init__(self, routing: Routing, batches: ModelBatcher, cache: InferenceCache) -> None:
        self._routing = routing
        self._cache = cache
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
        with self._routing.using(choice):
            if self._cache.enabled:
                return await self._around_cache(choice, matrix, deadline, priority)
            return await self._from_batches(choice, matrix, deadline, priority)

    async def _from_batches(
        self, choice: Choice, matrix: Matrix, deadline: float | None, priority: Priority
    ) -> list[ScoredRows]:
        most = self._batches.max_rows
        if len(matrix) <= most:
            return [await self._batches.submit(choice, matrix, len(matrix), deadline, priority)]
        parts = (matrix[first : first + most] for first in range(0, len(matrix), most))
        return await asyncio.gather(
            *(self._batches.submit(choice, part, len(part), deadline, priority) for part in parts)
        )

    async def _around_cache(
        self, choice: Choice, matrix: Matrix, deadline: float | None, priority: Priority
    ) -> list[ScoredRows]:
        """Rows that the version has scored before are not scored again."""
        scores, known = self._cache.lookup(choice.version.key, matrix)
        if known.all():
            return [ScoredRows(scores, choice, in_process=False)]
        found = await self._from_batches(choice, matrix[~known], deadline, priority)
        if any(one.choice.version is not choice.version or one.in_process for one in found):
            # Not all from one maker: their order is only kept without the cache.
            return await self._from_batches(choice, matrix, deadline, priority) if known.any() else found
        scores[~known] = np.concatenate([one.scores for one in found])
        self._cache.insert(choice.version.key, matrix[~known], scores[~known])
        return [ScoredRows(scores, choice, in_process=False)]
