"""What a process does before it says that it is ready, so that no caller pays for it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import numpy as np

from headrace.gateway.errors import GatewayError
from headrace.gateway.in_process_models import InProcessModels, ModelUnusableError
from headrace.gateway.inference import ScoredRows
from headrace.gateway.routing import Choice, Routing
from headrace.pipeline.events import FloatArray
from headrace.platform.logging import get_logger

TIMEOUT_S = 5.0


class WarmUp:
    """Waits for a route table, then scores a row that nobody sent, in Triton and in this process.

    What is away is warned of and not waited for: the gateway answers without it.

    Args:
        score: the core's way of scoring rows, shape (n, width): through the batcher to Triton.
        routing: which version answers.
        models: the models inside this process.
        width: number of features.
    """

    def __init__(
        self,
        score: Callable[[Choice, FloatArray, float | None], Awaitable[list[ScoredRows]]],
        routing: Routing,
        models: InProcessModels,
        width: int,
    ) -> None:
        self._score = score
        self._routing = routing
        self._models = models
        self._row = np.zeros((1, width))

    async def run(self) -> None:
        """Return when the first caller will be served as the thousandth is."""
        while not self._routing.has_table:
            await self._routing.changed()
        choice = self._routing.champion()
        deadline = asyncio.get_running_loop().time() + TIMEOUT_S
        try:
            async with asyncio.timeout_at(deadline):
                await self._score(choice, self._row, deadline)
                await self._models.infer(choice.version, self._row.astype(np.float32))
        except (GatewayError, ModelUnusableError, TimeoutError) as error:
            get_logger("warm_up").warning(
                "a model could not be tried before the first call",
                version=choice.version.version,
                reason=str(error) or f"no answer within {TIMEOUT_S:g} s",
            )
        # What is loaded by now stays: the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
