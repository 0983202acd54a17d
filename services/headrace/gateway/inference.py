"""Scores of a batch: from Triton, or inside this process where Triton cannot."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.gateway.errors import ModelFaultError, NotServingError
from headrace.gateway.in_process_models import InProcessModels, ModelUnusableError
from headrace.gateway.metrics import CANARY_FALLBACKS, INFER_TIME
from headrace.gateway.routing import Choice, Routing
from headrace.gateway.triton_errors import ModelNotLoadedError, TritonAwayError, TritonError
from headrace.gateway.triton_pool import TritonPool
from headrace.platform.logging import get_logger
from headrace.v1.prediction_pb2 import ROUTE_CANARY, ROUTE_CHAMPION, ROUTE_SHADOW


@dataclass(frozen=True)
class ScoredRows:
    """Scores of one block.

    Attributes:
        scores: shape (n,).
        choice: what they were scored with.
        in_process: whether that was inside this process.
    """

    scores: npt.NDArray[np.float32]
    choice: Choice
    in_process: bool


class Inference:
    """The model stage: `infer` is what the batcher of the models calls."""

    def __init__(self, routing: Routing, triton: TritonPool, models: InProcessModels) -> None:
        self._routing = routing
        self._triton = triton
        self._models = models
        self._warned = ""

    async def infer(self, choice: Choice, blocks: list[npt.NDArray[np.float32]]) -> Sequence[ScoredRows]:
        """The scores of blocks of rows, in order.

        Args:
            choice: the version to use. A champion that Triton does not have any more, and a canary that cannot answer,
                give way to the current champion.
            blocks: shape (n_i, width) each.

        Raises:
            NotServingError: neither Triton nor this process can run the version.
            ModelFaultError: it gives something that is no score.
        """
        matrix = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        try:
            scores, used, in_process = await self._scores(choice, matrix)
        except (NotServingError, ModelFaultError) as error:
            if choice.route != ROUTE_CANARY:
                raise
            # A candidate that fails costs nobody an answer.
            CANARY_FALLBACKS.inc(len(matrix))
            self._warn(choice, str(error))
            champion = self._routing.champion()
            with self._routing.using(champion):
                scores, used, in_process = await self._scores(champion, matrix)
        ends = np.cumsum([len(block) for block in blocks])
        return [ScoredRows(part, used, in_process) for part in np.split(scores, ends[:-1])]

    async def _scores(
        self, choice: Choice, matrix: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], Choice, bool]:
        fault: TritonError
        try:
            return await self._from_triton(choice, matrix), choice, False
        except ModelNotLoadedError as error:
            fault = error
            champion = self._routing.champion()
            same_features = champion.version.features_fingerprint == choice.version.features_fingerprint
            if choice.route == ROUTE_CHAMPION and champion.version is not choice.version and same_features:
                choice = champion
                try:
                    with self._routing.using(choice):
                        return await self._from_triton(choice, matrix), choice, False
                except TritonError as again:
                    fault = again
        except TritonError as error:
            fault = error
        # Once, not with each batch. That a server is away is said where it is found out.
        if not isinstance(fault, TritonAwayError):
            self._warn(choice, str(fault))
        if choice.route == ROUTE_SHADOW:
            # What runs in this process is there for the answers.
            raise NotServingError(f"shadow {choice.version.version} is not scored: {fault}")
        began = time.perf_counter()
        try:
            scores = await self._models.infer(choice.version, matrix)
        except ModelUnusableError as error:
            if isinstance(fault, TritonAwayError | ModelNotLoadedError):
                raise NotServingError(f"no model answers: {fault}; in this process: {error}") from error
            raise ModelFaultError(f"{fault}; in this process: {error}") from error
        INFER_TIME.labels("in_process").observe(time.perf_counter() - began)
        return scores, choice, True

    def _warn(self, choice: Choice, reason: str) -> None:
        if self._warned != choice.version.version:
            self._warned = choice.version.version
            get_logger().warning("Triton gave no scores", version=choice.version.version, reason=reason)

    async def _from_triton(self, choice: Choice, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        began = time.perf_counter()
        scores = await self._triton.infer(choice.version.triton_model, matrix, expected=choice.version.features)
        INFER_TIME.labels("triton").observe(time.perf_counter() - began)
        self._warned = ""
        return scores
