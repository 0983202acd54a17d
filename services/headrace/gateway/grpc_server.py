"""The gRPC server: our services, standard health for each, and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from headrace.gateway.grpc_service import FeatureService, PredictionService
from headrace.platform import telemetry
from headrace.platform.errors import OperatorError
from headrace.platform.health import Health
from headrace.v1 import prediction_service_pb2
from headrace.v1.prediction_service_pb2_grpc import (
    add_FeatureServiceServicer_to_server,
    add_PredictionServiceServicer_to_server,
)

SERVICES = ("PredictionService", "FeatureService")
CHECK_S = 0.2
MAX_MESSAGE_BYTES = 16 << 20
MIN_PING_INTERVAL_MS = 5_000


class GrpcServerError(OperatorError):
    """The server cannot listen; the message names the address."""

    # The port may be held by a process that is about to end.
    retriable = True


class _LiveHealth(health.aio.HealthServicer):  # type: ignore[misc]
    """Health that is looked up when it is asked for; who watches it is told within a moment."""

    def __init__(self, refresh: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._refresh = refresh

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 (the contract)
        await self._refresh()
        return await super().Check(request, context)


class GrpcServer:
    """Serves the gateway's methods.

    Args:
        address: host:port; port 0 takes a free one.
        predictions: scores events.
        features: reads features.
        state: of this process: what gRPC health says of scoring.
    """

    def __init__(self, address: str, predictions: PredictionService, features: FeatureService, state: Health) -> None:
        interceptors: list[Any] = []
        if telemetry.enabled():
            from opentelemetry.instrumentation import grpc as instrumentation

            interceptor: Any = instrumentation.aio_server_interceptor
            interceptors.append(interceptor())
        self._server = grpc.aio.server(
            interceptors=interceptors,
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                # A port that is taken is an error, not a second server beside the first.
                ("grpc.so_reuseport", 0),
                # A client may make sure that an idle stream still lives; without this it is turned away for it.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        self._address = address
        self._state = state
        self._health: Any = _LiveHealth(self._say)
        descriptor = prediction_service_pb2.DESCRIPTOR.services_by_name
        self._names = {name: descriptor[name].full_name for name in SERVICES}
        add_PredictionServiceServicer_to_server(predictions, self._server)
        add_FeatureServiceServicer_to_server(features, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*self._names.values(), health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            GrpcServerError: the address cannot be listened on.
        """
        await self._say()
        try:
            port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise GrpcServerError(f"cannot listen for gRPC on {self._address}") from error
        await self._server.start()
        return port

    async def report_health(self) -> None:
        """Keep gRPC health as this process's state is, until cancelled."""
        while True:
            await self._say()
            await asyncio.sleep(CHECK_S)

    async def stop(self, grace_s: float) -> None:
        """Take no new call, and let those under way finish within the grace."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    async def _say(self) -> None:
        ready = self._state.ready
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", self._names["PredictionService"]):
            await self._health.set(name, serving if ready else not_serving)
        # Features need no model.
        await self._health.set(self._names["FeatureService"], serving)
