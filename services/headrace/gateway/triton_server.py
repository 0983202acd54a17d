"""One Triton server over gRPC: scores, readiness, what it declares of a model, its statistics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2

from headrace.gateway.triton_errors import (
    ModelNotLoadedError,
    TritonAwayError,
    TritonError,
    TritonTimeoutError,
)
from headrace.gateway.triton_metadata import DeclaredModel, Tensor

Matrix = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]
T = TypeVar("T")

_SERVICE = "/inference.GRPCInferenceService/"
_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
# Requests differ in the model and the number of rows; beyond so many of them all are made anew.
_KEPT_PREFIXES = 4096
# How much longer than anybody waits a call may stay open, in seconds.
_LEFT_S = 30.0
# Field 7, raw_input_contents, as a length-delimited field.
_RAW_INPUT_TAG = b"\x3a"


class ModelCounts(NamedTuple):
    """What a server has counted of a model since it was loaded.

    Attributes:
        model: name of the Triton model.
        requests: that succeeded.
        failures: requests that failed.
        rows: scored.
        executions: of the model, each with one or more requests.
        queue_s: requests waited in Triton's queue, in seconds.
        input_s: inputs were put together, in seconds.
        infer_s: the model ran, in seconds.
        output_s: outputs were taken apart, in seconds.
    """

    model: str
    requests: int = 0
    failures: int = 0
    rows: int = 0
    executions: int = 0
    queue_s: float = 0.0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0


class TritonServer:
    """One server. Make it in a running event loop and close it there.

    Args:
        url: gRPC address, host:port.
        keepalive_s: time between two pings on a quiet connection, in seconds; 0 sends none. The server must allow
            them: `--grpc-keepalive-permit-without-calls=1` and `--grpc-http2-min-recv-ping-interval-without-data`
            below this time, else it closes the connection.
    """

    def __init__(self, url: str, *, keepalive_s: float) -> None:
        self.url = url
        self._channel = grpc.aio.insecure_channel(url, options=_channel_options(keepalive_s))
        # Bytes in and out: the messages are put together and taken apart here, for a part of what the client of
        # tritonclient takes.
        self._infer: Any = self._channel.unary_unary(_SERVICE + "ModelInfer")
        self._ready: Any = self._method("ServerReady", service_pb2.ServerReadyResponse)
        self._config: Any = self._method("ModelConfig", service_pb2.ModelConfigResponse)
        self._statistics: Any = self._method("ModelStatistics", service_pb2.ModelStatisticsResponse)
        self._prefixes: dict[tuple[str, int, int], bytes] = {}
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[None]] = set()

    def _method(self, name: str, answer: Any) -> Any:
        return self._channel.unary_unary(
            _SERVICE + name,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=answer.FromString,
        )

    async def infer(self, model: str, features: Matrix, timeout_s: float) -> Scores:
        """The scores of n rows, shape (n,).

        Args:
            model: name of the Triton model.
            features: shape (n, width), contiguous.
            timeout_s: how long it may take.

        Raises:
            TritonTimeoutError: no answer in this time.
            TritonAwayError: the server does not answer.
            ModelNotLoadedError: it does not have the model.
            TritonError: it answers with an error, or with something that is no score.
        """
        rows, width = features.shape
        prefix = self._prefixes.get((model, rows, width)) or self._prefix(model, rows, width)
        call = self._infer(prefix + features.tobytes(), timeout=timeout_s + _LEFT_S)
        answered: asyncio.Future[None] = self._loop.create_future()
        # Not gRPC's own deadline, and no cancellation: before 25.01 Triton may crash over a request that was cancelled.
        # Who gives up leaves the call, which ends with its answer or with the connection.
        call.add_done_callback(partial(_settle, answered))
        timer = self._loop.call_later(timeout_s, self._expire, answered, timeout_s)
        self._waiting.add(answered)
        try:
            await answered
            content = await call
        except grpc.aio.AioRpcError as error:
            raise _translated(error, self.url, timeout_s) from None
        finally:
            timer.cancel()
            self._waiting.discard(answered)
        # Named here, as the answer does not say more than that it is what was asked for.
        raw = service_pb2.ModelInferResponse.FromString(content).raw_output_contents
        if len(raw) != 1 or len(raw[0]) != 4 * rows:
            raise TritonError(f"Triton at {self.url}: {model} did not give one score per row")
        scores = np.frombuffer(raw[0], np.float32)
        if not np.isfinite(scores).all():
            raise TritonError(f"Triton at {self.url}: {model} gave a score that is not finite")
        return scores

    def _prefix(self, model: str, rows: int, width: int) -> bytes:
        """A request up to the values of its rows: what is the same for each batch of this size."""
        request = service_pb2.ModelInferRequest(model_name=model)
        request.outputs.add(name="score")
        features = request.inputs.add(name="features", datatype="FP32")
        features.shape.extend((rows, width))
        prefix = bytes(request.SerializeToString()) + _RAW_INPUT_TAG + _varint(4 * rows * width)
        if len(self._prefixes) >= _KEPT_PREFIXES:
            self._prefixes.clear()
        self._prefixes[model, rows, width] = prefix
        return prefix

    def abort(self) -> None:
        """Give up the calls under way: each raises `TritonAwayError` for its caller at once."""
        for answered in self._waiting:
            if not answered.done():
                answered.set_exception(TritonAwayError(f"Triton at {self.url}: given up, as it does not answer others"))

    def _expire(self, answered: asyncio.Future[None], timeout_s: float) -> None:
        if not answered.done():
            answered.set_exception(TritonTimeoutError(f"Triton at {self.url} did not answer within {timeout_s:.3g} s"))

    async def is_ready(self, timeout_s: float) -> bool:
        """Whether the server says that it serves."""
        try:
            answer = await self._ask(self._ready(service_pb2.ServerReadyRequest(), timeout=timeout_s), timeout_s)
        except TritonError:
            return False
        return bool(answer.ready)

    async def declared(self, model: str, timeout_s: float) -> DeclaredModel:
        """What the server declares of a model that it has loaded.

        Raises:
            TritonAwayError: the server does not answer in time.
            ModelNotLoadedError: it does not have the model.
            TritonError: it answers with an error.
        """
        answer = await self._ask(self._config(service_pb2.ModelConfigRequest(name=model), timeout=timeout_s), timeout_s)
        config = answer.config
        return DeclaredModel(
            inputs={one.name: _tensor(one) for one in config.input},
            outputs={one.name: _tensor(one) for one in config.output},
            batches=config.max_batch_size > 0,
            parameters={name: value.string_value for name, value in config.parameters.items()},
        )

    async def statistics(self, timeout_s: float) -> list[ModelCounts]:
        """What the server has counted of each model.

        Raises:
            TritonError: it does not answer, or with an error.
        """
        answer = await self._ask(self._statistics(service_pb2.ModelStatisticsRequest(), timeout=timeout_s), timeout_s)
        return [_counts(one) for one in answer.model_stats]

    async def connection_lost(self) -> None:
        """Wait until the connection that there is now, or the next one, is lost."""
        state = self._channel.get_state()
        while state is not grpc.ChannelConnectivity.READY:
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state()
        await self._channel.wait_for_state_change(state)

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        await self._channel.close()

    async def _ask(self, call: Awaitable[T], timeout_s: float) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise _translated(error, self.url, timeout_s) from None


def _settle(answered: asyncio.Future[None], _: Any) -> None:
    if not answered.done():
        answered.set_result(None)


def _channel_options(keepalive_s: float) -> list[tuple[str, int]]:
    options = [
        # Without these, gRPC waits up to two minutes before it tries a server again that was away.
        ("grpc.initial_reconnect_backoff_ms", 100),
        # How long it may take to connect: a server that is busy, or far away, needs more than the times beside it.
        ("grpc.min_reconnect_backoff_ms", 2000),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        # A connection of its own, so that one pool does not see what another does to a shared one.
        ("grpc.use_local_subchannel_pool", 1),
        # Retries are decided here, where it is known which servers there are.
        ("grpc.enable_retries", 0),
    ]
    if keepalive_s > 0:
        options += [
            ("grpc.keepalive_time_ms", int(keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", 2000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]
    return options


def _translated(error: grpc.aio.AioRpcError, url: str, timeout_s: float) -> TritonError:
    code, message = error.code(), error.details() or ""
    # An unloaded model is "not found" or, while it goes, "unavailable" with this text.
    if code is grpc.StatusCode.NOT_FOUND or "unknown model" in message:
        return ModelNotLoadedError(f"Triton at {url}: {message}")
    # "Unavailable" as well, but of one model on a server that answers.
    if "maximum queue size" in message:
        return TritonError(f"Triton at {url}: {message}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TritonTimeoutError(f"Triton at {url} did not answer within {timeout_s:.3g} s")
    if code in _AWAY:
        return TritonAwayError(f"Triton at {url}: {message}")
    return TritonError(f"Triton at {url}: {message}")


def _tensor(declared: Any) -> Tensor:
    return Tensor(_datatype(declared), tuple(declared.dims))


def _datatype(declared: Any) -> str:
    name: str = declared.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[declared.data_type].name
    return name.removeprefix("TYPE_")


def _counts(one: Any) -> ModelCounts:
    stats = one.inference_stats
    return ModelCounts(
        one.name,
        stats.success.count,
        stats.fail.count,
        one.inference_count,
        one.execution_count,
        stats.queue.ns / 1e9,
        stats.compute_input.ns / 1e9,
        stats.compute_infer.ns / 1e9,
        stats.compute_output.ns / 1e9,
    )


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
