"""What goes over the wire to Triton, seen by a server that speaks its protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from headrace.gateway.triton_errors import ModelNotLoadedError, TritonAwayError, TritonError, TritonTimeoutError
from headrace.gateway.triton_server import TritonServer

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


class Wire:
    """A server that answers with what a test says, when it says so."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.cancelled = 0
        self.answered = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.outputs = [np.array([0.25, 0.75], np.float32).tobytes()]
        self.status: tuple[grpc.StatusCode, str] | None = None

    async def infer(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.answered += 1
        if self.status is not None:
            await context.abort(*self.status)
        return service_pb2.ModelInferResponse(model_name="m", raw_output_contents=self.outputs)


@pytest.fixture
async def wire() -> Wire:
    return Wire()


@pytest.fixture
async def triton(wire: Wire) -> AsyncIterator[TritonServer]:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        wire.infer,
        request_deserializer=service_pb2.ModelInferRequest.FromString,
        response_serializer=service_pb2.ModelInferResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    triton = TritonServer(f"127.0.0.1:{port}", keepalive_s=0)
    yield triton
    wire.may_answer.set()
    await triton.close()
    await server.stop(1)


@pytest.mark.parametrize("rows", [1, 2, 200])
async def test_a_request_is_what_tritons_own_messages_say(triton: TritonServer, wire: Wire, rows: int) -> None:
    features = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    wire.outputs = [np.linspace(0, 1, rows, dtype=np.float32).tobytes()]
    for _ in range(2):
        np.testing.assert_array_equal(
            await triton.infer("fraud-000001", features, 5), np.linspace(0, 1, rows, dtype=np.float32)
        )
    expected = service_pb2.ModelInferRequest(model_name="fraud-000001", raw_input_contents=[features.tobytes()])
    expected.inputs.add(name="features", datatype="FP32", shape=[rows, 3])
    expected.outputs.add(name="score")
    assert wire.requests == [expected, expected]


async def test_a_call_that_nobody_waits_for_any_more_is_not_cancelled(triton: TritonServer, wire: Wire) -> None:
    wire.may_answer.clear()
    abandoned = asyncio.create_task(triton.infer("m", ROWS, 5))
    aborted = asyncio.create_task(triton.infer("m", ROWS, 5))
    with pytest.raises(TritonTimeoutError, match=r"did not answer within 0\.1 s"):
        await triton.infer("m", ROWS, 0.1)
    abandoned.cancel()
    await asyncio.wait([abandoned])
    triton.abort()
    with pytest.raises(TritonAwayError, match="given up"):
        await aborted
    wire.may_answer.set()
    async with asyncio.timeout(5):
        while wire.answered < 3:  # noqa: ASYNC110 (the server is what changes it)
            await asyncio.sleep(0.01)
    assert wire.cancelled == 0


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'm' is not found", ModelNotLoadedError),
        (grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'm' has no available versions", ModelNotLoadedError),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", TritonAwayError),
        (grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", TritonError),
        (grpc.StatusCode.INTERNAL, "the model failed", TritonError),
        (grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape", TritonError),
    ],
)
async def test_a_status_becomes_what_the_pool_can_do_about_it(
    triton: TritonServer, wire: Wire, status: grpc.StatusCode, message: str, kind: type[TritonError]
) -> None:
    wire.status = (status, message)
    with pytest.raises(TritonError) as raised:
        await triton.infer("m", ROWS, 5)
    assert type(raised.value) is kind
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("outputs", "reason"),
    [
        ([], "one score per row"),
        ([np.zeros(3, np.float32).tobytes()], "one score per row"),
        ([np.array([0.5, np.nan], np.float32).tobytes()], "not finite"),
    ],
)
async def test_what_is_no_score_is_refused(triton: TritonServer, wire: Wire, outputs: list[bytes], reason: str) -> None:
    wire.outputs = outputs
    with pytest.raises(TritonError, match=reason):
        await triton.infer("m", ROWS, 5)


async def test_a_server_that_is_not_there_is_away() -> None:
    triton = TritonServer("127.0.0.1:1", keepalive_s=0)
    with pytest.raises(TritonAwayError):
        await triton.infer("m", ROWS, 5)
    await triton.close()
