"""The gRPC server: our services, standard health for each, and reflection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from headrace.gateway.access_door import Door
from headrace.gateway.access_grpc import (
    GrpcAccess,
    UnknownCallers,
    add_reflection,
    connection_options,
    server_credentials,
)
from headrace.gateway.grpc_intake import KNOWN_VERSION, CallIntake, TurnAway, is_known
from headrace.gateway.grpc_reading import add_service
from headrace.gateway.grpc_service import STOPPING, Context, FeatureService, PredictionService
from headrace.platform import telemetry
from headrace.platform.errors import OperatorError
from headrace.platform.health import Health
from headrace.platform.logging import get_logger
from headrace.v1 import prediction_service_pb2
from headrace.v1.prediction_service_pb2_grpc import (
    add_FeatureServiceServicer_to_server,
    add_PredictionServiceServicer_to_server,
)

SERVICES = ("PredictionService", "FeatureService")
REFUSABLE = ("Predict", "PredictBatch")
"""Calls whose rows wait in the queue; who streams is not read from instead."""
CHECK_S = 0.2
TOLD_S = 0.1
MAX_MESSAGE_BYTES = 16 << 20
MIN_PING_INTERVAL_MS = 5_000


class _CallersWhoLeft(logging.Filter):
    """Leaves out what gRPC logs, with a stack trace, when a caller has gone before his answer was written."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is to be logged."""
        return not record.exc_info or type(record.exc_info[1]).__name__ != "ExecuteBatchError"


logging.getLogger("grpc._cython.cygrpc").addFilter(_CallersWhoLeft())


class GrpcServerError(OperatorError):
    """The server cannot listen; the message names the address."""

    # The port may be held by a process that is about to end.
    retriable = True


class _LiveHealth(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Health that is looked up when it is asked for; who watches it is told within a moment."""

    def __init__(self, look: Callable[[], dict[str, bool]], stopping: asyncio.Event) -> None:
        self._look = look
        self._stopping = stopping

    def _status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        serving = self._look().get(service)
        if serving is None:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if serving and not self._stopping.is_set():
            return health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse.NOT_SERVING

    async def Check(  # noqa: N802 (the contract)
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        status = self._status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:100]!r}")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(  # noqa: N802 (the contract)
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        last = None
        while True:
            stopping = self._stopping.is_set()
            status = self._status(request.service)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
                last = status
            if stopping:
                await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._stopping.wait()


class GrpcServer:
    """Serves the gateway's methods.

    Args:
        address: host:port; port 0 takes a free one.
        predictions: scores events.
        features: reads features.
        state: of this process: what gRPC health says of scoring.
        door: who is let in, and by what certificate.
        share_port: whether other processes listen on the same port.
        options: more options of the server, such as those of `pressure_options`.
        turn_away: who refuses predictions before they are read.
    """

    def __init__(
        self,
        address: str,
        predictions: PredictionService,
        features: FeatureService,
        state: Health,
        door: Door,
        *,
        share_port: bool = False,
        options: Sequence[tuple[str, int]] = (),
        turn_away: TurnAway,
    ) -> None:
        interceptors: list[Any] = []
        if telemetry.enabled():
            from opentelemetry.instrumentation import grpc as instrumentation

            interceptor: Any = instrumentation.aio_server_interceptor
            interceptors.append(interceptor())
        if not door.control.open:
            certificates = door.certificates is not None and door.certificates.client_certificate_required
            # First: what it ends, no other looks at.
            interceptors.insert(0, UnknownCallers(door.control, certificates=certificates))
        self._server = grpc.aio.server(
            interceptors=interceptors,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                # A port that is taken is an error, not a second server beside the first: unless it is held for both.
                ("grpc.so_reuseport", int(share_port)),
                # A client may make sure that an idle stream still lives; without this it is turned away for it.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                *connection_options(door.settings),
                *options,
            ],
        )
        self._address = address
        self._certificates = door.certificates
        self._predictions = predictions
        self._state = state
        self._stopping = asyncio.Event()
        descriptor = prediction_service_pb2.DESCRIPTOR.services_by_name
        self._names = {name: descriptor[name].full_name for name in SERVICES}
        self._handlers = {
            **add_service(add_PredictionServiceServicer_to_server, predictions, self._server),
            **add_service(add_FeatureServiceServicer_to_server, features, self._server),
        }
        self._interceptors = interceptors
        self._turn_away = turn_away
        self._intake: CallIntake | None = None
        health_pb2_grpc.add_HealthServicer_to_server(_LiveHealth(self._serving, self._stopping), self._server)
        add_reflection(
            (*self._names.values(), health.SERVICE_NAME, reflection.SERVICE_NAME),
            GrpcAccess(door.control),
            self._server,
        )

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            GrpcServerError: the address cannot be listened on.
        """
        try:
            if self._certificates is None:
                port = self._server.add_insecure_port(self._address)
            else:
                port = self._server.add_secure_port(self._address, server_credentials(self._certificates))
        except RuntimeError as error:
            raise GrpcServerError(f"cannot listen for gRPC on {self._address}") from error
        await self._server.start()
        if is_known():
            refusable = [f"/{self._names['PredictionService']}/{method}" for method in REFUSABLE]
            self._intake = CallIntake(
                self._server, self._handlers, self._interceptors, turn_away=self._turn_away, refusable=refusable
            )
        else:
            get_logger().warning("calls are taken in one at a time", grpc=grpc.__version__, known=KNOWN_VERSION)
        return port

    async def stop(self, grace_s: float) -> None:
        """Take no new call, and let those under way finish within the grace."""
        self._stopping.set()
        stopping = asyncio.create_task(self._server.stop(grace_s), name="grpc-stop")
        # The connections are told first: a stream that is opened again goes to another process.
        await asyncio.wait({stopping}, timeout=min(TOLD_S, grace_s))
        self._predictions.end_streams()
        await stopping
        if self._intake is not None:
            await self._intake.ended()

    def _serving(self) -> dict[str, bool]:
        # A call needs no share of the vectors, which changes hands whenever a gateway comes or goes.
        ready = self._state.ready_but_for("assignment")
        # Features need no model.
        return {"": ready, self._names["PredictionService"]: ready, self._names["FeatureService"]: True}
