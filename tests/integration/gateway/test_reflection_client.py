"""A client that knows only the address: what it calls and sends, it learns from the server by reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.integration.gateway.deployment import START_US, Deployment, eventually, pipeline, score_of

pytestmark = pytest.mark.timeout(120)

Json = dict[str, Any]

EVENT: Json = {
    "eventId": "payment-1",
    "eventTimeUs": str(START_US),
    "fields": {"customer_id": "c1", "terminal_id": "t1", "amount_cents": 5000},
}


class ReflectionClient:
    """Calls methods by name with JSON, as grpcurl does."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        # A pool of its own: nothing in it comes from generated code.
        self._pool = DescriptorPool(self._database)

    def services(self) -> list[str]:
        """The names of the services."""
        return list(self._database.get_services())

    def call(self, service: str, method: str, request: Json) -> Json:
        """Call a method that takes and gives one message."""
        described = self._pool.FindServiceByName(service).FindMethodByName(method)
        send: Callable[..., Any] = self._channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(described.output_type).FromString,
        )
        message = json_format.ParseDict(request, GetMessageClass(described.input_type)())
        answer: Json = json_format.MessageToDict(send(message, timeout=5))
        return answer


@contextmanager
def reflection_client(port: int) -> Iterator[ReflectionClient]:
    """A client of the gateway at this port."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ReflectionClient(channel)


async def test_a_client_without_generated_code_predicts_and_reads_features(deployment: Deployment) -> None:
    await deployment.route("000001", 0.5)
    gateway = await deployment.start()

    def healthy() -> bool:
        with reflection_client(gateway.port) as client:
            answer = client.call("grpc.health.v1.Health", "Check", {"service": "headrace.v1.PredictionService"})
            return answer == {"status": "SERVING"}

    # It follows readiness by a moment.
    await eventually(lambda: asyncio.to_thread(healthy), "gRPC health says SERVING")

    def use() -> tuple[list[str], Json, Json]:
        with reflection_client(gateway.port) as client:
            return (
                client.services(),
                client.call("headrace.v1.PredictionService", "Predict", {"event": EVENT, "options": {"explain": True}}),
                client.call("headrace.v1.FeatureService", "GetFeatures", {"event": EVENT}),
            )

    services, answer, vector = await asyncio.to_thread(use)
    assert {"headrace.v1.PredictionService", "headrace.v1.FeatureService", "grpc.health.v1.Health"} <= set(services)
    assert (answer["eventId"], answer["modelVersion"]) == ("payment-1", "000001")
    assert answer["score"] == pytest.approx(score_of(5000, 0.5), abs=1e-6)
    assert answer["featureNames"] == vector["names"] == list(pipeline.feature_names)
    assert answer["features"] == vector["values"]
    assert answer["features"][0] == 50.0
    assert await gateway.stop() == 0


async def test_a_client_without_generated_code_learns_what_is_wrong(deployment: Deployment) -> None:
    await deployment.route("000001")
    gateway = await deployment.start()
    wrong = EVENT | {"fields": {"customer_id": "c1", "terminal_id": "t1", "amount": 50}}

    def use() -> None:
        with reflection_client(gateway.port) as client:
            client.call("headrace.v1.PredictionService", "Predict", {"event": wrong})

    with pytest.raises(grpc.RpcError) as raised:
        await asyncio.to_thread(use)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "amount" in (raised.value.details() or "")
    assert await gateway.stop() == 0
