"""Scores from Triton servers over gRPC, around those that are away."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio as triton_grpc
from tritonclient.utils import InferenceServerException

from headrace.gateway.metrics import TRITON_AWAY
from headrace.platform.logging import get_logger

Matrix = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]

# Without these, gRPC waits up to two minutes before it tries a server again that was away.
_CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]
_AWAY = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


class TritonError(Exception):
    """Triton gave no scores."""


class TritonAwayError(TritonError):
    """No server answers."""


class ModelNotLoadedError(TritonError):
    """The server does not have the model: it was unloaded, or the server restarted."""


class TritonClient:
    """Asks the servers in turn. Make it in a running event loop; `run` finds out when a server is back.

    Args:
        urls: gRPC addresses, host:port.
        timeout_s: how long a batch may take.
        probe_s: time between two looks at a server that is away.
    """

    def __init__(self, urls: tuple[str, ...], *, timeout_s: float, probe_s: float) -> None:
        self._servers = [_Server(url, timeout_s) for url in urls]
        self._probe_s = probe_s
        self._turn = 0
        self._failed = asyncio.Event()

    @property
    def away(self) -> list[str]:
        """Servers that do not answer."""
        return [server.url for server in self._servers if server.away]

    async def infer(self, model: str, features: Matrix) -> Scores:
        """The scores of n rows, shape (n,).

        Args:
            model: name of the Triton model.
            features: shape (n, width).

        Raises:
            TritonAwayError: no server answers in time.
            ModelNotLoadedError: no server that answers has the model.
            TritonError: it answers with an error, or with something that is no score.
        """
        self._turn += 1
        failure: TritonError = TritonAwayError("no Triton server answers")
        for i in range(len(self._servers)):
            server = self._servers[(self._turn + i) % len(self._servers)]
            if server.away:
                continue
            try:
                return await server.infer(model, features)
            except TritonAwayError as error:
                server.away = True
                self._failed.set()
                self._count()
                get_logger().warning("Triton is away", url=server.url, reason=str(error))
                if not isinstance(failure, ModelNotLoadedError):
                    failure = error
            except ModelNotLoadedError as error:
                failure = error
        raise failure

    async def run(self) -> None:
        """Look after servers that are away until cancelled."""
        while True:
            await self._failed.wait()
            for server in self._servers:
                if server.away and await server.is_ready():
                    server.away = False
                    get_logger().info("Triton is back", url=server.url)
            self._count()
            if not self.away:
                self._failed.clear()
                continue
            await asyncio.sleep(self._probe_s)

    async def close(self) -> None:
        """Close the connections."""
        for server in self._servers:
            await server.close()

    def _count(self) -> None:
        TRITON_AWAY.set(len(self.away) / len(self._servers))


class _Server:
    def __init__(self, url: str, timeout_s: float) -> None:
        self.url = url
        self.away = False
        self._timeout_s = timeout_s
        self._client: Any = triton_grpc.InferenceServerClient(url, channel_args=_CHANNEL)
        self._wanted = [triton_grpc.InferRequestedOutput("score")]

    async def infer(self, model: str, features: Matrix) -> Scores:
        rows = triton_grpc.InferInput("features", list(features.shape), "FP32")
        rows.set_data_from_numpy(np.ascontiguousarray(features))
        try:
            async with asyncio.timeout(self._timeout_s + 0.1):
                answer = await self._client.infer(model, [rows], outputs=self._wanted, client_timeout=self._timeout_s)
        except TimeoutError as error:
            raise TritonAwayError(f"Triton at {self.url} did not answer within {self._timeout_s:g} s") from error
        except grpc.RpcError as error:
            raise TritonAwayError(f"Triton at {self.url}: {error}") from error
        except InferenceServerException as error:
            raise _translated(error, self.url) from error
        scores = answer.as_numpy("score")
        if scores is None or scores.size != len(features):
            raise TritonError(f"Triton at {self.url}: {model} did not give one score per row")
        scores = np.asarray(scores, np.float32).reshape(-1)
        if not np.isfinite(scores).all():
            raise TritonError(f"Triton at {self.url}: {model} gave a score that is not finite")
        return scores

    async def is_ready(self) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s + 0.1):
                return bool(await self._client.is_server_ready(client_timeout=self._timeout_s))
        except (TimeoutError, grpc.RpcError, InferenceServerException):
            return False

    async def close(self) -> None:
        await self._client.close()


def _translated(error: InferenceServerException, url: str) -> TritonError:
    status, message = str(error.status() or ""), str(error.message())
    # An unloaded model is "not found" or, while it goes, "not available" with this text.
    if status.endswith("NOT_FOUND") or "unknown model" in message:
        return ModelNotLoadedError(f"Triton at {url}: {message}")
    if status.endswith(_AWAY):
        return TritonAwayError(f"Triton at {url}: {message}")
    return TritonError(f"Triton at {url}: {message}")
