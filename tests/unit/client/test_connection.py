"""Addresses, TLS and credentials."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from headrace.client import (
    AccessToken,
    AsyncPredictionClient,
    CallError,
    Connection,
    EventInput,
    PredictionClient,
    Tls,
)
from headrace.client.calls import PREDICTIONS
from headrace.client.targets import Target, parse_target
from headrace.client.tokens import TokenCache
from headrace.v1.prediction_service_pb2 import PredictRequest, PredictResponse, StreamPredictResponse
from headrace.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)
from tests.certificates import Authority

AUTHORITY, STRANGER = Authority.create("authority"), Authority.create("stranger")
EVENT = EventInput("e1", 1, {"amount": 1})
Context = grpc.aio.ServicerContext[Any, Any]


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ("127.0.0.1:15051", Target("127.0.0.1:15051", several=False, loopback=True)),
        ("localhost:1", Target("localhost:1", several=False, loopback=True)),
        ("[::1]:1", Target("[::1]:1", several=False, loopback=True)),
        ("gateway.example:1", Target("gateway.example:1", several=False, loopback=False)),
        ("10.0.0.1:1,127.0.0.1:2", Target("ipv4:10.0.0.1:1,127.0.0.1:2", True, False, "10.0.0.1:1")),
        (["127.0.0.1:1", "127.0.0.1:2"], Target("ipv4:127.0.0.1:1,127.0.0.1:2", True, True, "127.0.0.1:1")),
        ("ipv4:127.0.0.1:1", Target("ipv4:127.0.0.1:1", False, True, "127.0.0.1:1")),
        ("[::1]:1,[::1]:2", Target("ipv6:[::1]:1,[::1]:2", True, True, "[::1]:1")),
        ("dns:///gateway:1", Target("dns:///gateway:1", several=True, loopback=False)),
        ("dns:localhost:1", Target("dns:localhost:1", several=True, loopback=True)),
        ("unix:/run/gateway.sock", Target("unix:/run/gateway.sock", several=False, loopback=True)),
    ],
)
def test_an_address_is_a_target(given: Any, target: Target) -> None:
    assert parse_target(given) == target


@pytest.mark.parametrize("wrong", ["gateway", "127.0.0.1", "http://gateway:1", "", "a:1,b:2", "127.0.0.1:1,[::1]:2"])
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"address"):
        parse_target(wrong)
    with pytest.raises(ValueError, match=r"address"):
        PredictionClient(wrong)


def jwt(expires_at: float) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, {"exp": expires_at})]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in [*parts, b"signature"])


def test_a_token_is_renewed_before_its_end() -> None:
    now = 1000.0
    given: list[str] = []

    def fresh() -> str:
        given.append(jwt(now + 100))
        return given[-1]

    tokens = TokenCache(fresh, clock=lambda: now)
    assert tokens.current() is None
    assert tokens.get() == tokens.current() == given[0]
    now = 1000 + 79.9
    assert tokens.get() == given[0]
    now = 1000 + 80
    assert tokens.current() is None
    assert tokens.get() == given[1] != given[0]
    assert len(given) == 2


def test_a_token_without_an_end_lasts_until_it_is_refused() -> None:
    values = iter(["a", "b"])
    tokens = TokenCache(lambda: AccessToken(next(values)), clock=lambda: 0.0)
    assert [tokens.get(), tokens.get()] == ["a", "a"]
    assert tokens.refused("a")
    assert tokens.get() == "b"
    # Another thread was quicker: the new one stays.
    assert tokens.refused("a")
    assert tokens.get() == "b"
    fixed = TokenCache("key")
    assert fixed.get() == "key"
    assert not fixed.refused("key")
    assert fixed.get() == "key"


@pytest.mark.parametrize("field", ["token", "api_key"])
def test_credentials_leave_the_machine_over_tls_only(field: str) -> None:
    secret: dict[str, Any] = {field: "secret"}
    with pytest.raises(ValueError, match="over TLS only"):
        PredictionClient(Connection("gateway.example:1", **secret))
    PredictionClient(Connection("gateway.example:1", tls=Tls(AUTHORITY.pem), **secret)).close()
    PredictionClient(Connection("127.0.0.1:1", **secret)).close()
    assert "secret" not in repr(Connection("127.0.0.1:1", **secret))


def test_tls_that_cannot_work_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="come together"):
        PredictionClient(Connection(tls=Tls(certificate=AUTHORITY.pem)))
    with pytest.raises(ValueError, match=r"CA .*missing.pem cannot be read: No such file"):
        PredictionClient(Connection(tls=Tls(tmp_path / "missing.pem")))
    with pytest.raises(ValueError, match="CA is not PEM"):
        PredictionClient(Connection(tls=Tls(b"nonsense")))


class Guarded(PredictionServiceServicer):
    """Lets in who has one of these tokens."""

    def __init__(self, accepted: set[str]) -> None:
        self.accepted = accepted
        self.calls = 0

    async def Predict(self, request: PredictRequest, context: Context) -> PredictResponse:  # noqa: N802 (the contract)
        await self._check(context)
        return PredictResponse(event_id=request.event.event_id, decision=self._shown(context))

    async def StreamPredict(  # noqa: N802
        self, request_iterator: AsyncIterator[PredictRequest], context: Context
    ) -> AsyncIterator[StreamPredictResponse]:
        await self._check(context)
        async for request in request_iterator:
            answer = PredictResponse(event_id=request.event.event_id)
            yield StreamPredictResponse(event_id=request.event.event_id, prediction=answer)

    @staticmethod
    def _shown(context: Context) -> str:
        shown = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        return shown.get("authorization", "").removeprefix("Bearer ") or shown.get("x-api-key", "")

    async def _check(self, context: Context) -> None:
        self.calls += 1
        if self.accepted and self._shown(context) not in self.accepted:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not accepted")


@asynccontextmanager
async def guarded(
    *accepted: str, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[tuple[Guarded, str]]:
    server = grpc.aio.server()
    servicer = Guarded(set(accepted))  # type: ignore[abstract]
    add_PredictionServiceServicer_to_server(servicer, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def by_threads(connection: Connection) -> str:
    def use() -> str:
        with PredictionClient(connection, timeout_s=10) as client:
            assert len(list(client.stream_predict([EVENT]))) == 1
            return client.predict(EVENT).decision

    return await asyncio.to_thread(use)


async def by_tasks(connection: Connection) -> str:
    async with AsyncPredictionClient(connection, timeout_s=10) as client:
        assert len([one async for one in client.stream_predict([EVENT])]) == 1
        return (await client.predict(EVENT)).decision


Use = Callable[[Connection], Any]
both = pytest.mark.parametrize("use", [by_threads, by_tasks])


@both
async def test_mutual_tls(use: Use, tmp_path: Path) -> None:
    server, own = AUTHORITY.server(), AUTHORITY.issue("checkout")
    credentials = grpc.ssl_server_credentials([(server.key_pem, server.pem)], AUTHORITY.pem, True)
    certificate, key = own.write(tmp_path, "checkout")
    async with guarded("secret", credentials=credentials) as (_, target):
        assert await use(Connection(target, tls=Tls(AUTHORITY.pem, certificate, key), api_key="secret")) == "secret"
        with pytest.raises(CallError, match="UNAVAILABLE"):
            await predict_once(Connection(target, tls=Tls(AUTHORITY.pem), retry=None))
        stranger = Tls(STRANGER.pem, own.pem, own.key_pem)
        with pytest.raises(CallError, match="UNAVAILABLE"):
            await predict_once(Connection(target, tls=stranger, retry=None))


async def predict_once(connection: Connection) -> None:
    async with AsyncPredictionClient(connection) as client:
        await client.predict(EVENT)


@both
async def test_a_name_that_differs_from_the_address_is_told(use: Use) -> None:
    server = AUTHORITY.issue("gateway", x509.DNSName("gateway.example"))
    credentials = grpc.ssl_server_credentials([(server.key_pem, server.pem)])
    async with guarded("k", credentials=credentials) as (_, target):
        assert await use(Connection(target, tls=Tls(AUTHORITY.pem, server_name="gateway.example"), token="k")) == "k"


@both
async def test_a_token_that_is_refused_is_renewed_once(use: Use) -> None:
    given: Iterator[str] = iter(["old", "new", "newer"])
    async with guarded("new") as (server, target):
        assert await use(Connection(target, token=lambda: next(given))) == "new"
        assert server.calls == 3
        with pytest.raises(CallError, match="UNAUTHENTICATED: the token is not accepted"):
            await use(Connection(target, token="old"))


async def test_only_gateways_that_serve_are_used() -> None:
    servers = []
    counts = []
    for status in (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING) * 2:
        server = grpc.aio.server()
        servicer = Guarded(set())  # type: ignore[abstract]
        add_PredictionServiceServicer_to_server(servicer, server)
        healthy: Any = health.aio.HealthServicer()
        await healthy.set(PREDICTIONS, status)
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append((server, f"127.0.0.1:{port}", servicer, healthy))
    async with AsyncPredictionClient([target for _, target, _, _ in servers]) as client:
        for _ in range(20):
            await client.predict(EVENT)
        counts = [servicer.calls for _, _, servicer, _ in servers]
        assert sum(counts) == 20
        assert min(counts[0], counts[2]) > 0
        assert counts[1] == counts[3] == 0
        # One of the two goes away: the other answers all.
        await servers[0][0].stop(None)
        for _ in range(10):
            await client.predict(EVENT)
        assert servers[2][2].calls - counts[2] + servers[0][2].calls - counts[0] == 10
    for server, _, _, _ in servers[1:]:
        await server.stop(None)
