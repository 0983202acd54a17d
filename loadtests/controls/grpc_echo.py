"""A bare grpc.aio server with the gateway's messages: reads a request, answers a constant of a real answer's size.

`python -m loadtests.controls.grpc_echo PORT ANSWER_FILE`: the file has a PredictResponse. Unary and streams, on
uvloop, one process. What it does any Python gateway of this contract has to do; what it leaves out is the whole work.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop

from headrace.v1.prediction_service_pb2 import (
    PredictBatchRequest,
    PredictBatchResponse,
    PredictRequest,
    PredictResponse,
    StreamPredictResponse,
)
from headrace.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)


class Echo(PredictionServiceServicer):
    """Answers everything alike."""

    def __init__(self, answer: PredictResponse) -> None:
        self._answer = answer
        self._of_stream = StreamPredictResponse(event_id=answer.event_id, prediction=answer)

    async def Predict(self, request: PredictRequest, context: Any) -> PredictResponse:  # noqa: N802
        return self._answer

    async def PredictBatch(self, request: PredictBatchRequest, context: Any) -> PredictBatchResponse:  # noqa: N802
        rows, like = len(request.event_ids), self._answer
        return PredictBatchResponse(
            event_ids=[like.event_id] * rows,
            prediction_ids=[like.prediction_id] * rows,
            scores=[like.score] * rows,
            decisions=[like.decision] * rows,
            routes=[like.route] * rows,
            roles=[like.role] * rows,
            model_versions=[like.model_version],
            model_version_index=[0] * rows,
            untrained=[like.untrained] * rows,
        )

    async def StreamPredict(  # noqa: N802
        self, request_iterator: AsyncIterator[PredictRequest], context: Any
    ) -> AsyncIterator[StreamPredictResponse]:
        async for _ in request_iterator:
            yield self._of_stream


async def main(port: int, answer: PredictResponse) -> None:
    """Serve until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server = grpc.aio.server()
    add_PredictionServiceServicer_to_server(Echo(answer), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await stopped.wait()
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), PredictResponse.FromString(Path(sys.argv[2]).read_bytes())))
