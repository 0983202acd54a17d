"""A Triton server over gRPC: what it has loaded, pushing a model, asking it for scores, taking a model off."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc.aio as triton_grpc
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from headrace.platform.triton_config import MAX_BATCH_ROWS, MODEL_FILE

# Without these, gRPC waits up to two minutes before it tries a server again that was away.
_CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]
_AWAY = {"StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"}


class TritonError(Exception):
    """A Triton server did not do what it was asked.

    Attributes:
        retriable: whether the same call may succeed later.
    """

    retriable = False


class TritonAwayError(TritonError):
    """The server does not answer, or not in time."""

    retriable = True


class TritonRefusedError(TritonError):
    """The server answered with an error, for example about a model that it cannot load."""


@dataclass(frozen=True)
class ModelStatistics:
    """What a server has counted for a model since it was loaded.

    Attributes:
        answered: requests that it answered.
        failed: requests that it answered with an error.
        executions: runs of the model.
        compute_s: time in these runs, in seconds.
    """

    answered: int
    failed: int
    executions: int
    compute_s: float


class TritonServer:
    """One Triton server. Make it in a running event loop and close it there.

    Args:
        url: gRPC address, host:port.
        call_timeout_s: how long a short call may take.
        load_timeout_s: how long loading a model may take.
    """

    def __init__(self, url: str, *, call_timeout_s: float = 2.0, load_timeout_s: float = 15.0) -> None:
        self.url = url
        self._call_timeout_s = call_timeout_s
        self._load_timeout_s = load_timeout_s
        self._client: Any = triton_grpc.InferenceServerClient(url, channel_args=_CHANNEL)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def ready_models(self) -> frozenset[str]:
        """Names of the models that the server serves now.

        Raises:
            TritonError: it does not answer, or with an error.
        """
        return frozenset(await self.statistics())

    async def statistics(self) -> dict[str, ModelStatistics]:
        """What the server has counted for each model that it serves now.

        Raises:
            TritonError: it does not answer, or with an error.
        """
        # Not the repository index: it lists what is on the server's disk, which what is pushed never is.
        found = await self._call("list its models", self._client.get_inference_statistics, timeout=None)
        return {
            one.name: ModelStatistics(
                one.inference_stats.success.count,
                one.inference_stats.fail.count,
                one.execution_count,
                one.inference_stats.compute_infer.ns / 1e9,
            )
            for one in found.model_stats
        }

    async def load(self, name: str, onnx: bytes, config: str) -> None:
        """Push a model; returns when the server has loaded it and serves it. A model of that name is replaced.

        Args:
            name: of the Triton model.
            onnx: the model file.
            config: its configuration, from `triton_model_config`.

        Raises:
            TritonAwayError: no answer in time; it may be loaded or not.
            TritonRefusedError: the server cannot load it.
        """
        loading = f"load {name}"
        await self._call(
            loading,
            self._client.load_model,
            name,
            config=config,
            files={MODEL_FILE: onnx},
            timeout=self._load_timeout_s,
        )
        if not await self._call(f"serve {name}", self._client.is_model_ready, name, timeout=None):
            raise TritonRefusedError(f"Triton at {self.url} loaded {name} but does not serve it")

    async def unload(self, name: str) -> None:
        """Take a model off; it is no error when it is not there.

        Raises:
            TritonError: the server does not answer, or with an error.
        """
        await self._call(f"unload {name}", self._client.unload_model, name, timeout=self._load_timeout_s)

    async def score(self, name: str, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Ask a model for scores.

        Args:
            name: of the Triton model.
            features: rows x features.

        Returns:
            One score a row.

        Raises:
            TritonError: the server does not answer, or with an error.
        """
        parts = [
            await self._score(name, features[first : first + MAX_BATCH_ROWS])
            for first in range(0, len(features), MAX_BATCH_ROWS)
        ]
        return np.concatenate(parts)

    async def _score(self, name: str, features: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = triton_grpc.InferInput("features", list(features.shape), "FP32")
        rows.set_data_from_numpy(np.ascontiguousarray(features))
        wanted = [triton_grpc.InferRequestedOutput("score")]
        try:
            answer = await self._call(
                f"score with {name}", self._client.infer, name, [rows], outputs=wanted, timeout=self._load_timeout_s
            )
        except TritonRefusedError:
            if name in await self.ready_models():
                raise
            # It was lost in between: the server restarted, and that says nothing about the model.
            raise TritonAwayError(f"Triton at {self.url} no longer has {name}") from None
        scores = answer.as_numpy("score")
        if scores is None:
            raise TritonRefusedError(f"Triton at {self.url} gave no output 'score' for {name}")
        return np.asarray(scores, np.float32).reshape(-1)

    async def _call(self, doing: str, method: Any, *args: Any, timeout: float | None, **options: Any) -> Any:
        timeout = timeout or self._call_timeout_s
        try:
            # The outer deadline is for what the client does before and after the call; it must never be the first.
            async with asyncio.timeout(timeout + 1):
                return await method(*args, client_timeout=timeout, **options)
        except TimeoutError as error:
            raise TritonAwayError(f"Triton at {self.url} did not {doing} within {timeout:g} s") from error
        except grpc.RpcError as error:
            raise TritonAwayError(f"Triton at {self.url} cannot {doing}: {error}") from error
        except InferenceServerException as error:
            kind = TritonAwayError if error.status() in _AWAY else TritonRefusedError
            raise kind(f"Triton at {self.url} cannot {doing}: {error.message()}") from error
