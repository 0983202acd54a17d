"""The client while its gateway is killed and comes back: every event has one answer, and one record."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from headrace.client import AsyncPredictionClient, Connection, EventInput, Tls
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_pb2 import ROLE_ANSWER, Prediction
from tests.certificates import Authority
from tests.integration.gateway.deployment import START_US, Deployment, eventually, free_port

pytestmark = pytest.mark.timeout(120)

AFTER = 100


def payment(event_id: str) -> EventInput:
    return EventInput(event_id, START_US, {"customer_id": "c1", "terminal_id": "t1", "amount_cents": 1000})


AUTHORITY = Authority.create("authority")
TOKEN_KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER, AUDIENCE = "https://issuer.example", "headrace"
POLICY = """
[[grants]]
callers = ["jwt:checkout"]
pipelines = ["fraud-*"]
permissions = ["predict", "ingest"]
"""


def guarded(directory: Path) -> dict[str, Any]:
    """Settings of a gateway with TLS that lets in who has a token."""
    certificate, private = AUTHORITY.server().write(directory, "server")
    public = TOKEN_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / "policy.toml").write_text(POLICY)
    (directory / "jwt.pem").write_bytes(public)
    return {
        "GATEWAY_TLS_CERTIFICATE": certificate,
        "GATEWAY_TLS_KEY": private,
        "GATEWAY_ACCESS_POLICY": directory / "policy.toml",
        "GATEWAY_ACCESS_JWT_KEYS": directory / "jwt.pem",
        "GATEWAY_ACCESS_JWT_ISSUER": ISSUER,
        "GATEWAY_ACCESS_JWT_AUDIENCE": AUDIENCE,
    }


async def test_every_event_is_answered_once_though_its_gateway_dies(deployment: Deployment, tmp_path: Path) -> None:
    await deployment.route("000001")
    port = free_port()
    settings = guarded(tmp_path) | {"GATEWAY_GRPC_PORT": port}
    gateway = await deployment.start(**settings)
    tokens = 0

    def token() -> str:
        nonlocal tokens
        tokens += 1
        claims = {"sub": "checkout", "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 2}
        return jwt.encode(claims, TOKEN_KEY, "ES256")

    restarted = asyncio.Event()
    under_way = asyncio.Event()
    answers: defaultdict[str, list[str]] = defaultdict(list)

    async def payments() -> AsyncIterator[EventInput]:
        number, left = 0, AFTER
        while left:
            left -= restarted.is_set()
            yield payment(f"s{number}")
            number += 1

    async def stream(client: AsyncPredictionClient) -> None:
        async for one in client.stream_predict(payments(), max_in_flight=32):
            assert one.HasField("prediction"), one
            answers[one.event_id].append(one.prediction.prediction_id)
            if len(answers) == AFTER:
                under_way.set()

    async def calls(client: AsyncPredictionClient, name: str) -> None:
        number, left = 0, AFTER // 4
        while left:
            left -= restarted.is_set()
            one = await client.predict(payment(f"{name}-{number}"), ingest=True)
            answers[one.event_id].append(one.prediction_id)
            number += 1

    async def restart() -> None:
        await under_way.wait()
        await gateway.kill()
        await deployment.start(**settings)
        restarted.set()

    connection = Connection(f"127.0.0.1:{port}", tls=Tls(AUTHORITY.pem), token=token, wait_for_ready=True)
    async with AsyncPredictionClient(connection, timeout_s=40) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(stream(client))
        for i in range(2):
            tasks.create_task(calls(client, f"u{i}"))
        tasks.create_task(restart())

    assert len(answers) > 2 * AFTER
    # Its tokens last for 2 seconds each.
    assert tokens > 1
    # A call that was answered by the process that died, and sent again, has the first answer again.
    assert set(map(len, answers.values())) == {1}
    logged: list[Prediction] = []

    async def all_logged() -> bool:
        logged[:] = await deployment.predictions()
        return {ids[0] for ids in answers.values()} <= {one.prediction_id for one in logged}

    await eventually(all_logged, "every answer in the log")
    assert Counter(one.event_id for one in logged if one.role == ROLE_ANSWER) == Counter(answers.keys())
    ingested = [Event.FromString(one.value) for one in await deployment.records(deployment.topics.events)]
    assert Counter(one.event_id for one in ingested) == Counter(one for one in answers if one.startswith("u"))
